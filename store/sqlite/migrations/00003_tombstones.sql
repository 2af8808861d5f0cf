-- +goose Up

-- Ids that can never again be those of runs, with how what they stand for
-- counts as ended. An id is in runs or here; each commit sees to that.
CREATE TABLE tombstones (
    id     TEXT PRIMARY KEY,
    shard  INTEGER NOT NULL,
    status INTEGER NOT NULL,
    buried INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
