-- Which files of this folder were applied here, and what they said.  `biogate schema apply` runs every file each time,
-- since every statement may run again, and writes a row where a file is new or says something else than last time.
CREATE TABLE IF NOT EXISTS schema_migrations (
    name          String,
    checksum      UUID,
    agent_version LowCardinality(String),
    applied_at    DateTime64(3,'UTC') DEFAULT now64(3,'UTC')
) ENGINE = MergeTree
ORDER BY (name, applied_at);
