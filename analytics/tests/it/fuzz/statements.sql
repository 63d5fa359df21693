SELECT count() AS readings FROM events
SELECT event_type, avg(value) AS mean FROM events GROUP BY event_type ORDER BY event_type
SELECT * FROM biometric_events
SELECT user_id, value FROM events WHERE event_type = {type:String}
SELECT metadata, rr_intervals, local_time FROM events LIMIT 3
SELECT nan AS n, inf AS i, -inf AS m, NULL AS nil, toUInt64(18446744073709551615) AS big
SELECT toDecimal128('1.5', 10) AS d, [1, 2] AS a, map('k', 1) AS m, tuple(1, 'x') AS t, toIPv4('1.2.3.4') AS ip
SELECT unhex('ff00fe') AS bytes
SELECT 1 AS a, 2 AS a
SELECT 1 WHERE 0
SHOW TABLES
DESCRIBE TABLE events
EXPLAIN SELECT 1
INSERT INTO user_activity (event_id, page) VALUES (generateUUIDv4(), 'written by the fuzz')
INSERT INTO biometric_events (event_id, value) SELECT generateUUIDv4(), 1
insert into gateway_status (gateway_id) values ('written by the fuzz')
/* read */ INSERT INTO user_activity (page) VALUES ('written by the fuzz')
WITH 1 AS x INSERT INTO user_activity (page) SELECT 'written by the fuzz'
EXPLAIN INSERT INTO user_activity (page) VALUES ('written by the fuzz')
SELECT 1; INSERT INTO user_activity (page) VALUES ('written by the fuzz')
SELECT 1;; DROP TABLE user_activity
SELECT '\'; DROP TABLE user_activity; --'
SELECT 1 -- ; DROP TABLE user_activity
DROP TABLE user_activity
DROP VIEW events
DROP DATABASE IF EXISTS fuzz_written
CREATE DATABASE fuzz_written
CREATE TABLE fuzz_written (x Int8) ENGINE = Memory
CREATE TEMPORARY TABLE fuzz_written (x Int8)
CREATE FUNCTION fuzz_written AS x -> x
CREATE USER fuzz_written
GRANT ALL ON *.* TO gw
TRUNCATE TABLE user_activity
ALTER TABLE biometric_events DELETE WHERE 1
ALTER TABLE biometric_events UPDATE value = 0 WHERE 1
DELETE FROM biometric_events WHERE 1
UPDATE biometric_events SET value = 0 WHERE 1
OPTIMIZE TABLE biometric_events FINAL
RENAME TABLE user_activity TO fuzz_written
EXCHANGE TABLES user_activity AND gateway_status
DETACH TABLE user_activity
ATTACH TABLE user_activity
UNDROP TABLE user_activity
SYSTEM FLUSH LOGS
SYSTEM REFRESH VIEW hourly_metrics_mv
KILL QUERY WHERE 1
SET readonly = 0
USE system
SELECT 1 SETTINGS readonly = 0
SELECT 1 SETTINGS max_execution_time = 0, max_result_rows = 0
SELECT count() FROM numbers(1000000000000) SETTINGS max_execution_time = 0
SELECT sleepEachRow(1) FROM numbers(100)
SELECT * FROM numbers(1000000)
SELECT repeat('x', 1000000) FROM numbers(1000)
SELECT throwIf(1, 'words of the statement')
SELECT 1 INTO OUTFILE 'fuzz_written'
SELECT 1 FORMAT Native
SELECT * FROM file('/etc/hostname', 'LineAsString')
INSERT INTO FUNCTION file('fuzz_written.csv', 'CSV', 'x Int8') SELECT 1
SELECT * FROM url('http://127.0.0.1:9/', 'LineAsString')
SELECT * FROM remote('127.0.0.1', system.one)
SELECT * FROM executable('id', 'LineAsString', 'x String')
SELECT * FROM mysql('127.0.0.1:9', 'd', 't', 'u', 'p')
SELECT * FROM merge('system', '.*')
SELECT name, value FROM system.settings WHERE name = 'readonly'
SELECT * FROM system.users
BACKUP DATABASE default TO File('fuzz_written')
SELECT {missing:String}
SELECT {type:Identifier} FROM events
SELECT 
