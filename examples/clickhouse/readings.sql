CREATE TABLE IF NOT EXISTS default.readings
(
    device LowCardinality(String),
    sensor LowCardinality(String),
    value  Float64,
    time   DateTime64(9, 'UTC'),
    unit   LowCardinality(String),
    tags   Map(String, String)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (device, sensor, time)
SETTINGS non_replicated_deduplication_window = 1000;
