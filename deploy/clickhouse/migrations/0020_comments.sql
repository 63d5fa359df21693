-- What each column means, for whoever looks at a table.  docs/data.md is made of these texts: what stands behind "Example: "
-- is its column of examples.
ALTER TABLE biometric_events
    COMMENT COLUMN IF EXISTS event_id 'The same in every retry and correction. Example: 0b8e6a52-6d0c-5c1e-9a3b-1f6f5b8f2a10',
    COMMENT COLUMN IF EXISTS user_id 'The person, by a pseudonym; the one of zeros is nobody. Example: 6f1c1f0e-8a52-4b7e-9d35-0c1a2b3c4d5e',
    COMMENT COLUMN IF EXISTS event_type 'What was measured; see the types of event. Example: heart_rate',
    COMMENT COLUMN IF EXISTS component 'Which part of it; empty where the type has one. Example: systolic',
    COMMENT COLUMN IF EXISTS value 'In the one unit of the type. Example: 72',
    COMMENT COLUMN IF EXISTS unit 'UCUM code of the type. Example: /min',
    COMMENT COLUMN IF EXISTS timestamp 'When it was measured, in UTC; of a period the end. Example: 2026-11-23 14:13:20.000',
    COMMENT COLUMN IF EXISTS period_start 'Since when, of steps, sleep and workouts. Example: 2026-11-23 14:12:20.000',
    COMMENT COLUMN IF EXISTS tz_offset_min 'Minutes by which the place was ahead of UTC at timestamp. Example: 60',
    COMMENT COLUMN IF EXISTS device_id 'Name of the device in the configuration of its hub. Example: strap-anna',
    COMMENT COLUMN IF EXISTS gateway_id 'Name of the hub. Example: hub-0042',
    COMMENT COLUMN IF EXISTS location 'Room or ward. Example: room 12',
    COMMENT COLUMN IF EXISTS clock 'How timestamp is known: by a synchronised hub, by estimate, by the device. Example: synced',
    COMMENT COLUMN IF EXISTS metadata 'What the profile lists beside the value, the profile itself, the raw unit. Example: {"contact":"detected","profile":"bluetooth-heart-rate/1"}',
    COMMENT COLUMN IF EXISTS version 'A correction counts up; the highest holds. Example: 1',
    COMMENT COLUMN IF EXISTS deleted '1 for a row that takes an event away. Example: 0',
    COMMENT COLUMN IF EXISTS ingested_at 'When the server took the row; nobody can send it. Example: 2026-11-23 14:13:21.480';

ALTER TABLE hourly_rollup
    COMMENT COLUMN IF EXISTS user_id 'The person. Example: 6f1c1f0e-8a52-4b7e-9d35-0c1a2b3c4d5e',
    COMMENT COLUMN IF EXISTS event_type 'What was measured. Example: heart_rate',
    COMMENT COLUMN IF EXISTS hour 'Start of the hour, in UTC. Example: 2026-11-23 14:00:00',
    COMMENT COLUMN IF EXISTS groups 'Of each component and unit of the hour: count, sum, smallest and greatest value. Example: [(\'\',\'/min\',3600,259200,58,97)]',
    COMMENT COLUMN IF EXISTS covers 'Every event that came up to this instant is in the row. Example: 2026-11-23 15:05:00.000';

ALTER TABLE hourly_watermark
    COMMENT COLUMN IF EXISTS upto 'Every event that came up to this instant is in hourly_rollup. Example: 2026-11-23 15:05:00.000';

ALTER TABLE user_activity
    COMMENT COLUMN IF EXISTS event_id 'The page view. Example: 4c0e8a1e-52b1-4c39-9a31-6c4f8b0f7d21',
    COMMENT COLUMN IF EXISTS user_id 'The person. Example: 6f1c1f0e-8a52-4b7e-9d35-0c1a2b3c4d5e',
    COMMENT COLUMN IF EXISTS session_id 'The visit that the view is part of. Example: 9b2d5a40-1a77-4a35-8a4c-7b1f0f0a9c55',
    COMMENT COLUMN IF EXISTS page 'Path of the page. Example: /dashboard',
    COMMENT COLUMN IF EXISTS action 'What was done there. Example: view',
    COMMENT COLUMN IF EXISTS timestamp 'When, in UTC. Example: 2026-11-23 14:13:20.000',
    COMMENT COLUMN IF EXISTS duration 'For how many seconds. Example: 12',
    COMMENT COLUMN IF EXISTS device 'Kind of device. Example: tablet',
    COMMENT COLUMN IF EXISTS browser 'Name of the browser. Example: Firefox',
    COMMENT COLUMN IF EXISTS version 'A correction counts up; the highest holds. Example: 1',
    COMMENT COLUMN IF EXISTS deleted '1 for a row that takes a view away. Example: 0',
    COMMENT COLUMN IF EXISTS ingested_at 'When the server took the row. Example: 2026-11-23 14:13:21.480';

ALTER TABLE gateway_status
    COMMENT COLUMN IF EXISTS gateway_id 'Name of the hub. Example: hub-0042',
    COMMENT COLUMN IF EXISTS at 'By the clock of the hub, in UTC. Example: 2026-11-23 14:10:00.000',
    COMMENT COLUMN IF EXISTS agent_version 'Version of biogate. Example: 1.0.0',
    COMMENT COLUMN IF EXISTS config_hash 'Of its configuration, to see which hubs differ. Example: 1f0c2a9b',
    COMMENT COLUMN IF EXISTS profiles_hash 'Of its device profiles. Example: 77ab01ce',
    COMMENT COLUMN IF EXISTS clock 'How the hub knew the time. Example: synced',
    COMMENT COLUMN IF EXISTS backlog_events 'Events that wait in its buffer. Example: 0',
    COMMENT COLUMN IF EXISTS oldest_waiting 'Time of the oldest of them; unknown where it is NULL. Example: 2026-11-23 13:55:02.000',
    COMMENT COLUMN IF EXISTS disk_free_bytes 'Free room of the disk with the buffer. Example: 21474836480',
    COMMENT COLUMN IF EXISTS certificate_end 'When the first of its certificates ends. Example: 2027-01-01 00:00:00.000',
    COMMENT COLUMN IF EXISTS devices 'Each device: last heard, battery, signal, whether it is worn, readings taken and refused since the heartbeat before. Example: [(\'strap-anna\',\'2026-11-23 14:09:59.000\',80,-61,true,300,0)]',
    COMMENT COLUMN IF EXISTS received_at 'When the server took the row. Example: 2026-11-23 14:10:00.320';

ALTER TABLE reconciliation
    COMMENT COLUMN IF EXISTS gateway_id 'Name of the hub. Example: hub-0042',
    COMMENT COLUMN IF EXISTS device_id 'Name of the device. Example: strap-anna',
    COMMENT COLUMN IF EXISTS hour 'Hour of the own time of the events, in UTC. Example: 2026-11-23 14:00:00.000',
    COMMENT COLUMN IF EXISTS count 'Events that the hub has delivered. Example: 3600',
    COMMENT COLUMN IF EXISTS ids_xor 'XOR of their ids, each read as a number. Example: 153407861042113',
    COMMENT COLUMN IF EXISTS version 'The highest holds. Example: 3',
    COMMENT COLUMN IF EXISTS said_at 'When the server took the row. Example: 2026-11-23 15:00:04.000';

ALTER TABLE gateway_gaps
    COMMENT COLUMN IF EXISTS gateway_id 'Name of the hub. Example: hub-0042',
    COMMENT COLUMN IF EXISTS gap 'Its own id, so that a repeat is the same row. Example: a3c4e9d0-6f0b-4c5e-8a90-3d2b1c0f9e87',
    COMMENT COLUMN IF EXISTS device_id 'Name of the device; NULL where it is not known or there are several. Example: strap-anna',
    COMMENT COLUMN IF EXISTS cause 'The hub was full, its disk was damaged, or the profile refused the bytes. Example: evicted',
    COMMENT COLUMN IF EXISTS from_time 'Time of the first event. Example: 2026-11-20 03:00:00.000',
    COMMENT COLUMN IF EXISTS to_time 'Time of the last one. Example: 2026-11-20 03:59:59.000',
    COMMENT COLUMN IF EXISTS count 'How many. Example: 3600',
    COMMENT COLUMN IF EXISTS why 'In words. Example: the store is full',
    COMMENT COLUMN IF EXISTS version 'The highest holds. Example: 1',
    COMMENT COLUMN IF EXISTS said_at 'When the server took the row. Example: 2026-11-20 04:00:04.000';

ALTER TABLE coverage
    COMMENT COLUMN IF EXISTS gateway_id 'Name of the hub. Example: hub-0042',
    COMMENT COLUMN IF EXISTS device_id 'Name of the device. Example: strap-anna',
    COMMENT COLUMN IF EXISTS hour 'Start of the hour, in UTC. Example: 2026-11-23 14:00:00.000',
    COMMENT COLUMN IF EXISTS measured 'Seconds with a value. Example: 3000',
    COMMENT COLUMN IF EXISTS not_worn 'Seconds in which the device said that nobody wears it. Example: 540',
    COMMENT COLUMN IF EXISTS out_of_reach 'Seconds without line, link or broker. Example: 60',
    COMMENT COLUMN IF EXISTS hub_off 'Seconds in which the hub did not run. Example: 0',
    COMMENT COLUMN IF EXISTS clock_unsure 'Seconds in which nobody knew the time. Example: 0',
    COMMENT COLUMN IF EXISTS aside 'Seconds whose readings were set aside in the hub. Example: 0',
    COMMENT COLUMN IF EXISTS evicted 'Seconds that were measured and lost in the hub. Example: 0',
    COMMENT COLUMN IF EXISTS silent 'Seconds in reach in which nothing came. Example: 0',
    COMMENT COLUMN IF EXISTS version 'The highest holds. Example: 1',
    COMMENT COLUMN IF EXISTS said_at 'When the server took the row. Example: 2026-11-23 15:00:04.000';

ALTER TABLE device_assignments
    COMMENT COLUMN IF EXISTS gateway_id 'Name of the hub. Example: hub-0042',
    COMMENT COLUMN IF EXISTS device_id 'Name of the device. Example: strap-anna',
    COMMENT COLUMN IF EXISTS version 'Number of the statement; of those about an instant the highest holds. Example: 2',
    COMMENT COLUMN IF EXISTS valid_from 'From when; NULL is since always. Example: 2026-11-23 14:00:00.000',
    COMMENT COLUMN IF EXISTS valid_until 'Until when; NULL is until further notice. Example: 2026-11-23 16:00:00.000',
    COMMENT COLUMN IF EXISTS user_id 'Who wore it; the one of zeros is nobody. Example: 6f1c1f0e-8a52-4b7e-9d35-0c1a2b3c4d5e',
    COMMENT COLUMN IF EXISTS location 'In which room or ward. Example: room 12',
    COMMENT COLUMN IF EXISTS says 'Whether the statement is about the person, the place or both. Example: person',
    COMMENT COLUMN IF EXISTS said_by 'By an entry of the configuration or by a command. Example: command',
    COMMENT COLUMN IF EXISTS said_at 'When the hub was told. Example: 2026-11-23 14:02:11.000',
    COMMENT COLUMN IF EXISTS clock 'How valid_from and valid_until are known. Example: synced',
    COMMENT COLUMN IF EXISTS revision 'The same statement with its times better known counts up. Example: 1',
    COMMENT COLUMN IF EXISTS received_at 'When the server took the row. Example: 2026-11-23 14:02:12.000';

ALTER TABLE schema_migrations
    COMMENT COLUMN IF EXISTS name 'File of deploy/clickhouse/migrations, without its ending. Example: 0001_landing_zone',
    COMMENT COLUMN IF EXISTS checksum 'UUIDv5 of its text. Example: 5d0c7b1e-3f52-5e0a-9f0e-2b8a4c6d7e8f',
    COMMENT COLUMN IF EXISTS agent_version 'Version of biogate that applied it. Example: 1.0.0',
    COMMENT COLUMN IF EXISTS applied_at 'When. Example: 2026-11-26 08:00:00.000';
