-- +goose Up

-- Settings that are fixed when the store is made.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- The owner of each shard. An epoch only grows; a commit names the epoch that
-- it was made under and is refused under any other.
CREATE TABLE shards (
    shard    INTEGER PRIMARY KEY,
    epoch    INTEGER NOT NULL,
    owner    TEXT NOT NULL,
    acquired INTEGER NOT NULL
) STRICT;

-- Every registered version of every workflow. Runs refer to it by number.
CREATE TABLE workflows (
    workflow   INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    version    TEXT NOT NULL,
    kind       TEXT NOT NULL,
    registered INTEGER NOT NULL,
    active     INTEGER NOT NULL,
    definition BLOB NOT NULL,
    UNIQUE (name, version)
) STRICT;

-- One row per run. run numbers them in the order in which they were committed,
-- whatever their shard: what is written together lies together, here and in
-- history, and a commit touches few pages. ref is the number that the shard
-- gave; the shard is ref >> 40. Times are milliseconds of the Unix epoch; NULL
-- is never (ended, wake), none (tags, retry_of, failed_step, error), or, in
-- key, the same as id.
CREATE TABLE runs (
    run         INTEGER PRIMARY KEY,
    ref         INTEGER NOT NULL,
    id          TEXT NOT NULL,
    workflow    INTEGER NOT NULL,
    status      INTEGER NOT NULL,
    waived      INTEGER NOT NULL,
    key         TEXT,
    input_hash  BLOB NOT NULL,
    tags        TEXT,
    retry_of    TEXT,
    created     INTEGER NOT NULL,
    updated     INTEGER NOT NULL,
    ended       INTEGER,
    wake        INTEGER,
    failed_step TEXT,
    error       TEXT
) STRICT;

CREATE UNIQUE INDEX runs_ref ON runs (ref);
CREATE UNIQUE INDEX runs_id ON runs (id);

-- Serves every list: by workflow and status directly, all others as a merge of
-- the few (workflow, status) ranges that counts says are not empty.
CREATE INDEX runs_status ON runs (workflow, status, created, ref);

-- These hold only the runs that need them. The last column of some makes that
-- a query need not read the rows themselves.
CREATE INDEX runs_key ON runs (key, created, ref) WHERE key IS NOT NULL;
CREATE INDEX runs_failed ON runs (failed_step, created, ref) WHERE failed_step IS NOT NULL;
CREATE INDEX runs_unfinished ON runs (ref, wake, status) WHERE status < 4;
CREATE INDEX runs_due ON runs (ref >> 40, wake, ref, status) WHERE wake IS NOT NULL AND status < 4;

-- Tags once more, in list order, for tagged runs only.
CREATE TABLE tags (
    name    TEXT NOT NULL,
    value   TEXT NOT NULL,
    created INTEGER NOT NULL,
    ref     INTEGER NOT NULL,
    PRIMARY KEY (name, value, created, ref)
) STRICT, WITHOUT ROWID;

-- The number of runs by workflow version and status, kept by each commit.
CREATE TABLE counts (
    workflow INTEGER NOT NULL,
    status   INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    PRIMARY KEY (workflow, status)
) STRICT, WITHOUT ROWID;

-- The truth: one row per decision of a run, clustered by run.
CREATE TABLE history (
    run  INTEGER NOT NULL,
    seq  INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;

-- Small values that an orchestrator wants to find again at its next start.
CREATE TABLE notes (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
