-- +goose Up

-- Settings that are fixed when the store is made.
CREATE TABLE meta (
    name  text COLLATE "C" PRIMARY KEY,
    value bigint NOT NULL
);

-- The owner of each shard. An epoch only grows; a commit names the epoch that
-- it was made under and is refused under any other.
CREATE TABLE shards (
    shard    integer PRIMARY KEY,
    epoch    bigint NOT NULL,
    owner    text NOT NULL,
    acquired bigint NOT NULL,
    removed  bigint NOT NULL DEFAULT 0 -- highest number of a run that was removed
) WITH (fillfactor = 20);

-- Who commits: a row for each store that is open. batch is the number of its
-- last commit, written by that commit, so that one whose answer was lost is
-- found or known to be missing. A new connection raises generation, after which
-- what was sent on the one before can no longer be written.
CREATE TABLE writers (
    writer     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    generation bigint NOT NULL,
    batch      bigint NOT NULL,
    used       bigint NOT NULL
) WITH (fillfactor = 20);

-- Every registered version of every workflow. Runs refer to it by number.
CREATE TABLE workflows (
    workflow   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text COLLATE "C" NOT NULL,
    version    text COLLATE "C" NOT NULL,
    kind       text NOT NULL,
    registered bigint NOT NULL,
    active     boolean NOT NULL,
    definition bytea NOT NULL,
    UNIQUE (name, version)
);

-- One row per run. ref is the number that the shard gave; the shard is
-- ref >> 40. Times are milliseconds of the Unix epoch; NULL is never (ended,
-- wake), none (tags, retry_of, failed_step, error, parent), or, in key, the same
-- as id.
CREATE TABLE runs (
    ref         bigint PRIMARY KEY,
    created     bigint NOT NULL,
    updated     bigint NOT NULL,
    ended       bigint,
    wake        bigint,
    input_hash  uuid NOT NULL,
    workflow    integer NOT NULL,
    status      smallint NOT NULL,
    waived      boolean NOT NULL,
    id          text COLLATE "C" NOT NULL,
    key         text COLLATE "C",
    tags        text,
    retry_of    text,
    failed_step text COLLATE "C",
    error       text,
    parent      text COLLATE "C",
    parent_step text
);

CREATE UNIQUE INDEX runs_id ON runs (id);

-- Serves every list: by workflow and status directly, all others as a merge of
-- the few (workflow, status) ranges that counts says are not empty.
CREATE INDEX runs_status ON runs (workflow, status, created, ref);

-- These hold only the runs that need them.
CREATE INDEX runs_key ON runs (key, created, ref) WHERE key IS NOT NULL;
CREATE INDEX runs_failed ON runs (failed_step, created, ref) WHERE failed_step IS NOT NULL;
CREATE INDEX runs_parent ON runs (parent, created, ref) WHERE parent IS NOT NULL;
CREATE INDEX runs_unfinished ON runs (ref, wake, workflow, status) WHERE status < 4;
CREATE INDEX runs_ended ON runs ((ref >> 40), ended, ref) WHERE ended IS NOT NULL;
CREATE INDEX runs_due ON runs ((ref >> 40), wake, ref) WHERE wake IS NOT NULL AND status < 4;

-- Tags once more, in list order, for tagged runs only.
CREATE TABLE tags (
    name    text COLLATE "C" NOT NULL,
    value   text COLLATE "C" NOT NULL,
    created bigint NOT NULL,
    ref     bigint NOT NULL,
    PRIMARY KEY (name, value, created, ref)
);

-- The number of runs by workflow version and status, kept by each commit: the
-- sum over all buckets, of which each writer uses one, so that they do not wait
-- for each other. A run may begin in one bucket and end in another.
CREATE TABLE counts (
    bucket   integer NOT NULL,
    workflow integer NOT NULL,
    status   smallint NOT NULL,
    n        bigint NOT NULL,
    PRIMARY KEY (bucket, workflow, status)
) WITH (fillfactor = 20);

-- The truth: one row per decision of a run.
CREATE TABLE history (
    ref  bigint NOT NULL,
    seq  bigint NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (ref, seq)
);

-- Ids that cannot be those of other runs, with how what they stand for ended or
-- counts as ended. An id is in runs or here; each commit sees to that. until is
-- from when on a row may be removed; NULL is never. The rest is NULL (false in
-- waived) where there never was a run.
CREATE TABLE tombstones (
    buried     bigint NOT NULL,
    until      bigint,
    created    bigint,
    ended      bigint,
    input_hash uuid,
    shard      integer NOT NULL,
    workflow   integer,
    status     smallint NOT NULL,
    waived     boolean NOT NULL,
    id         text COLLATE "C" PRIMARY KEY
);

CREATE INDEX tombstones_until ON tombstones (shard, until, id) WHERE until IS NOT NULL;

-- Named locks that are held: the queue of each, as its shard's owner encodes it.
CREATE TABLE locks (
    shard integer NOT NULL,
    name  bytea NOT NULL,
    data  bytea NOT NULL,
    PRIMARY KEY (shard, name)
);

-- Small values that an orchestrator wants to find again.
CREATE TABLE notes (
    name  text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL
);
