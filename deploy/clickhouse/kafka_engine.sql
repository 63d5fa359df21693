-- The second way from Kafka into the landing zone, without Kafka Connect: the server reads the topic itself.
-- At least once: after a crash a block comes again, and the table keeps each event once (FINAL, or the view `events`).
-- Run it as admin in the landing zone's database, with the brokers' names in place of kafka:9093; TLS and SASL go into the
-- server's configuration (<kafka> section).  A record that is no event goes to kafka_refused with its text and the reason, in
-- place of stopping the topic.  Not run here with a broker: the engine of the tests must not hold Kafka tables.  Its
-- statements were parsed, and its SELECTs run on rows as the gateway writes them (tests/it/deploy_kafka.rs).
--
-- Take it where Kafka Connect is too much to run.  Connect with exactlyOnce keeps raw counts exact too, moves bad records to a
-- topic, and can be stopped and restarted beside the server.

CREATE TABLE IF NOT EXISTS kafka_biometric_events (
    event_id      UUID,
    user_id       UUID,
    event_type    String,
    component     String,
    value         Float64,
    unit          String,
    timestamp     Int64,                                    -- ms, as the gateway writes it
    period_start  Nullable(Int64),
    tz_offset_min Int16,
    device_id     String,
    gateway_id    String,
    location      Nullable(String),
    clock         String,
    metadata      String,
    version       UInt32,
    deleted       UInt8
) ENGINE = Kafka
SETTINGS kafka_broker_list = 'kafka:9093', kafka_topic_list = 'biometric-events', kafka_group_name = 'landing-zone',
         kafka_format = 'JSONEachRow', kafka_num_consumers = 4, kafka_thread_per_consumer = 1,
         kafka_max_block_size = 65536, kafka_poll_max_batch_size = 65536, kafka_flush_interval_ms = 2000,
         kafka_handle_error_mode = 'stream', input_format_json_read_objects_as_strings = 1;

CREATE TABLE IF NOT EXISTS kafka_refused (
    topic     LowCardinality(String),
    partition UInt64,
    position  UInt64,
    error     String,
    record    String,
    at        DateTime64(3,'UTC') DEFAULT now64(3)
) ENGINE = MergeTree ORDER BY (topic, at) TTL toDateTime(at) + INTERVAL 90 DAY DELETE;

CREATE MATERIALIZED VIEW IF NOT EXISTS kafka_biometric_events_mv TO biometric_events AS
SELECT event_id, user_id, event_type, component, value, unit, fromUnixTimestamp64Milli(timestamp, 'UTC') AS timestamp,
       if(period_start IS NULL, NULL, fromUnixTimestamp64Milli(assumeNotNull(period_start), 'UTC')) AS period_start,
       tz_offset_min, device_id, gateway_id, location, clock, metadata, version, deleted
FROM kafka_biometric_events
WHERE length(_error) = 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS kafka_refused_mv TO kafka_refused AS
SELECT _topic AS topic, _partition AS partition, _offset AS position, _error AS error, _raw_message AS record
FROM kafka_biometric_events
WHERE length(_error) > 0;
