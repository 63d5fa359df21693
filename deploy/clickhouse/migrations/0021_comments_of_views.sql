-- The same for the columns of the views.  A view that is replaced later loses them: the file that does it says them again.
ALTER TABLE events
    COMMENT COLUMN IF EXISTS event_id 'The same in every retry and correction. Example: 0b8e6a52-6d0c-5c1e-9a3b-1f6f5b8f2a10',
    COMMENT COLUMN IF EXISTS user_id 'The person, by a pseudonym; the one of zeros is nobody. Example: 6f1c1f0e-8a52-4b7e-9d35-0c1a2b3c4d5e',
    COMMENT COLUMN IF EXISTS event_type 'What was measured; see the types of event. Example: heart_rate',
    COMMENT COLUMN IF EXISTS component 'Which part of it; empty where the type has one. Example: systolic',
    COMMENT COLUMN IF EXISTS value 'In the one unit of the type. Example: 72',
    COMMENT COLUMN IF EXISTS unit 'UCUM code of the type. Example: /min',
    COMMENT COLUMN IF EXISTS timestamp 'When it was measured, in UTC; of a period the end. Example: 2026-11-23 14:13:20.000',
    COMMENT COLUMN IF EXISTS period_start 'Since when, of steps, sleep and workouts. Example: 2026-11-23 14:12:20.000',
    COMMENT COLUMN IF EXISTS tz_offset_min 'Minutes by which the place was ahead of UTC at timestamp. Example: 60',
    COMMENT COLUMN IF EXISTS local_time 'timestamp as the wall clock of the place said it; its type says UTC all the same. Example: 2026-11-23 15:13:20.000',
    COMMENT COLUMN IF EXISTS device_id 'Name of the device in the configuration of its hub. Example: strap-anna',
    COMMENT COLUMN IF EXISTS gateway_id 'Name of the hub. Example: hub-0042',
    COMMENT COLUMN IF EXISTS location 'Room or ward. Example: room 12',
    COMMENT COLUMN IF EXISTS clock 'How timestamp is known: by a synchronised hub, by estimate, by the device. Example: synced',
    COMMENT COLUMN IF EXISTS rr_intervals 'Seconds between heartbeats, out of metadata; empty where there are none. Example: [0.83,0.81]',
    COMMENT COLUMN IF EXISTS metadata 'What the profile lists beside the value, the profile itself, the raw unit. Example: {"contact":"detected","profile":"bluetooth-heart-rate/1"}',
    COMMENT COLUMN IF EXISTS version 'A correction counts up; the row with the highest is the one shown. Example: 1',
    COMMENT COLUMN IF EXISTS ingested_at 'When the server took the row; nobody can send it. Example: 2026-11-23 14:13:21.480';

ALTER TABLE hourly_metrics_exact
    COMMENT COLUMN IF EXISTS user_id 'The person, by a pseudonym; the one of zeros is nobody. Example: 6f1c1f0e-8a52-4b7e-9d35-0c1a2b3c4d5e',
    COMMENT COLUMN IF EXISTS event_type 'What was measured; see the types of event. Example: heart_rate',
    COMMENT COLUMN IF EXISTS component 'Which part of it; empty where the type has one. Example: systolic',
    COMMENT COLUMN IF EXISTS unit 'UCUM code of the type. Example: /min',
    COMMENT COLUMN IF EXISTS hour 'Start of the hour, in UTC. Example: 2026-11-23 14:00:00',
    COMMENT COLUMN IF EXISTS count 'How many events. Example: 3600',
    COMMENT COLUMN IF EXISTS sum_value 'Their sum; of steps, sleep and workouts the total of the hour. Example: 259200',
    COMMENT COLUMN IF EXISTS min_value 'The smallest value. Example: 58',
    COMMENT COLUMN IF EXISTS max_value 'The greatest value. Example: 97',
    COMMENT COLUMN IF EXISTS avg_value 'The mean of the values. Example: 72';

ALTER TABLE hourly_stale
    COMMENT COLUMN IF EXISTS user_id 'The person, by a pseudonym; the one of zeros is nobody. Example: 6f1c1f0e-8a52-4b7e-9d35-0c1a2b3c4d5e',
    COMMENT COLUMN IF EXISTS event_type 'What was measured; see the types of event. Example: heart_rate',
    COMMENT COLUMN IF EXISTS hour 'Start of the hour, in UTC. Example: 2026-11-23 14:00:00';

ALTER TABLE hourly_metrics
    COMMENT COLUMN IF EXISTS user_id 'The person, by a pseudonym; the one of zeros is nobody. Example: 6f1c1f0e-8a52-4b7e-9d35-0c1a2b3c4d5e',
    COMMENT COLUMN IF EXISTS event_type 'What was measured; see the types of event. Example: heart_rate',
    COMMENT COLUMN IF EXISTS component 'Which part of it; empty where the type has one. Example: systolic',
    COMMENT COLUMN IF EXISTS unit 'UCUM code of the type. Example: /min',
    COMMENT COLUMN IF EXISTS hour 'Start of the hour, in UTC. Example: 2026-11-23 14:00:00',
    COMMENT COLUMN IF EXISTS count 'How many events. Example: 3600',
    COMMENT COLUMN IF EXISTS sum_value 'Their sum; of steps, sleep and workouts the total of the hour. Example: 259200',
    COMMENT COLUMN IF EXISTS min_value 'The smallest value. Example: 58',
    COMMENT COLUMN IF EXISTS max_value 'The greatest value. Example: 97',
    COMMENT COLUMN IF EXISTS avg_value 'The mean of the values. Example: 72';

ALTER TABLE session_metrics
    COMMENT COLUMN IF EXISTS user_id 'The person. Example: 6f1c1f0e-8a52-4b7e-9d35-0c1a2b3c4d5e',
    COMMENT COLUMN IF EXISTS session_id 'The visit. Example: 9b2d5a40-1a77-4a35-8a4c-7b1f0f0a9c55',
    COMMENT COLUMN IF EXISTS session_start 'Time of its first page view, in UTC. Example: 2026-11-23 14:13:20.000',
    COMMENT COLUMN IF EXISTS session_end 'Time of its last one. Example: 2026-11-23 14:21:07.000',
    COMMENT COLUMN IF EXISTS page_views 'How many page views. Example: 9',
    COMMENT COLUMN IF EXISTS unique_pages 'How many different pages. Example: 5',
    COMMENT COLUMN IF EXISTS total_duration 'Seconds of all its page views together. Example: 467';

ALTER TABLE gateway_now
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
    COMMENT COLUMN IF EXISTS received_at 'When the server took the row. Example: 2026-11-23 14:10:00.320',
    COMMENT COLUMN IF EXISTS silent_seconds 'Seconds since then. Example: 41',
    COMMENT COLUMN IF EXISTS clock_behind_seconds 'By how much the clock of the hub is behind that of the server. Example: 0';

ALTER TABLE reconciliation_gaps
    COMMENT COLUMN IF EXISTS gateway_id 'Name of the hub. Example: hub-0042',
    COMMENT COLUMN IF EXISTS device_id 'Name of the device in the configuration of its hub. Example: strap-anna',
    COMMENT COLUMN IF EXISTS hour 'Hour of the own time of the events, in UTC. Example: 2026-11-23 14:00:00.000',
    COMMENT COLUMN IF EXISTS sent 'Events that the hub says it has delivered. Example: 3600',
    COMMENT COLUMN IF EXISTS stored 'Rows that are here. Example: 3599',
    COMMENT COLUMN IF EXISTS lacking 'sent less stored; below zero: more are here than were sent. Example: 1',
    COMMENT COLUMN IF EXISTS lacking_id 'With exactly one row lacking its event_id, else empty. Example: 0b8e6a52-6d0c-5c1e-9a3b-1f6f5b8f2a10';

ALTER TABLE hub_hours
    COMMENT COLUMN IF EXISTS gateway_id 'Name of the hub. Example: hub-0042',
    COMMENT COLUMN IF EXISTS hour 'Hour of the own time of the events, in UTC. Example: 2026-11-23 14:00:00',
    COMMENT COLUMN IF EXISTS sent 'Events that the hub says it has delivered. Example: 3600',
    COMMENT COLUMN IF EXISTS stored 'Rows that are here. Example: 3599',
    COMMENT COLUMN IF EXISTS lacking 'sent less stored; below zero: more are here than were sent. Example: 1',
    COMMENT COLUMN IF EXISTS unsaid 'Rows that are here of devices that the hub did not speak of yet. Example: 0',
    COMMENT COLUMN IF EXISTS lost 'Events that will never come, of gaps that begin in the hour. Example: 0',
    COMMENT COLUMN IF EXISTS refused 'Readings that lie in the quarantine of the hub, of gaps that begin in the hour. Example: 0',
    COMMENT COLUMN IF EXISTS gaps 'Gaps that touch the hour; what is lost or refused stands at the first hour of each. Example: 0',
    COMMENT COLUMN IF EXISTS is_judged '0 while rows may still be on their way. Example: 1',
    COMMENT COLUMN IF EXISTS why 'In words. Example: warehouse: rows are missing';

ALTER TABLE hub_complete
    COMMENT COLUMN IF EXISTS gateway_id 'Name of the hub. Example: hub-0042',
    COMMENT COLUMN IF EXISTS complete_up_to 'All that the hub heard up to here is in the table; NULL: not known. Example: 2026-11-23 14:00:00.000',
    COMMENT COLUMN IF EXISTS backlog_events 'Events that wait in its buffer. Example: 0',
    COMMENT COLUMN IF EXISTS oldest_waiting 'Time of the oldest of them; unknown where it is NULL. Example: 2026-11-23 13:55:02.000',
    COMMENT COLUMN IF EXISTS last_heartbeat 'When the last heartbeat came. Example: 2026-11-23 14:10:00.320',
    COMMENT COLUMN IF EXISTS silent_seconds 'Seconds since then. Example: 41',
    COMMENT COLUMN IF EXISTS rows_lacking 'Rows that are missing here in all hours. Example: 0',
    COMMENT COLUMN IF EXISTS events_lost 'Events that will never come, in all its hours. Example: 0',
    COMMENT COLUMN IF EXISTS events_lost_undated 'Of these, what the hub knows no time of, so that no hour names it. Example: 0',
    COMMENT COLUMN IF EXISTS clock 'How the hub knew the time. Example: synced',
    COMMENT COLUMN IF EXISTS agent_version 'Version of biogate. Example: 1.0.0',
    COMMENT COLUMN IF EXISTS heard 'Up to when the hub has delivered what it heard; NULL: not known. Example: 2026-11-23 14:10:00.000';

ALTER TABLE device_hours
    COMMENT COLUMN IF EXISTS gateway_id 'Name of the hub. Example: hub-0042',
    COMMENT COLUMN IF EXISTS device_id 'Name of the device in the configuration of its hub. Example: strap-anna',
    COMMENT COLUMN IF EXISTS hour 'Start of the hour, in UTC. Example: 2026-11-23 14:00:00',
    COMMENT COLUMN IF EXISTS measured 'Seconds with a value. Example: 3000',
    COMMENT COLUMN IF EXISTS not_worn 'Seconds in which the device said that nobody wears it. Example: 540',
    COMMENT COLUMN IF EXISTS out_of_reach 'Seconds without line, link or broker. Example: 60',
    COMMENT COLUMN IF EXISTS hub_off 'Seconds in which the hub did not run. Example: 0',
    COMMENT COLUMN IF EXISTS clock_unsure 'Seconds in which nobody knew the time. Example: 0',
    COMMENT COLUMN IF EXISTS aside 'Seconds whose readings were set aside in the hub. Example: 0',
    COMMENT COLUMN IF EXISTS evicted 'Seconds that were measured and lost in the hub. Example: 0',
    COMMENT COLUMN IF EXISTS silent 'Seconds in reach in which nothing came. Example: 0',
    COMMENT COLUMN IF EXISTS measured_share 'measured / 3600. Example: 0.8333',
    COMMENT COLUMN IF EXISTS reason 'In words, what most of the seconds without a value were. Example: not worn';
