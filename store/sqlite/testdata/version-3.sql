-- A store of schema version 3, as SQLite dumps it.
PRAGMA application_id = 1380799316;
BEGIN TRANSACTION;
CREATE TABLE counts (
    workflow INTEGER NOT NULL,
    status   INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    PRIMARY KEY (workflow, status)
) STRICT, WITHOUT ROWID;
INSERT INTO "counts" VALUES(1,4,1);
INSERT INTO "counts" VALUES(2,1,1);
CREATE TABLE history (
    run  INTEGER NOT NULL,
    seq  INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO "history" VALUES(1,1,X'01');
INSERT INTO "history" VALUES(1,2,X'02FF');
INSERT INTO "history" VALUES(2,1,X'03');
CREATE TABLE locks (
    shard INTEGER NOT NULL,
    name  TEXT NOT NULL,
    data  BLOB NOT NULL,
    PRIMARY KEY (shard, name)
) STRICT, WITHOUT ROWID;
INSERT INTO "locks" VALUES(1,'l',X'0102');
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "meta" VALUES('shards',4);
CREATE TABLE notes (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "notes" VALUES('n',X'76');
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
INSERT INTO "runs" VALUES(1,1099511627777,'done',1,4,1,NULL,X'000102030405060708090A0B0C0D0E0F',NULL,'first',1700000000001,1700000000005,1700000000005,NULL,NULL,NULL);
INSERT INTO "runs" VALUES(2,1099511627778,'live',2,1,0,'k',X'000102030405060708090A0B0C0D0E0F','{"region":"eu"}',NULL,1700000000002,1700000000002,NULL,1700000009000,'pay','E: no');
CREATE TABLE schema_versions (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	);
INSERT INTO "schema_versions" VALUES(1,0,1,'2026-11-25 04:18:14');
INSERT INTO "schema_versions" VALUES(2,1,1,'2026-11-25 04:18:14');
INSERT INTO "schema_versions" VALUES(3,2,1,'2026-11-25 04:18:14');
INSERT INTO "schema_versions" VALUES(4,3,1,'2026-11-25 04:18:14');
CREATE TABLE shards (
    shard    INTEGER PRIMARY KEY,
    epoch    INTEGER NOT NULL,
    owner    TEXT NOT NULL,
    acquired INTEGER NOT NULL
) STRICT;
INSERT INTO "shards" VALUES(1,1700000000,'before',1700000000000);
CREATE TABLE tags (
    name    TEXT NOT NULL,
    value   TEXT NOT NULL,
    created INTEGER NOT NULL,
    ref     INTEGER NOT NULL,
    PRIMARY KEY (name, value, created, ref)
) STRICT, WITHOUT ROWID;
INSERT INTO "tags" VALUES('region','eu',1700000000002,1099511627778);
CREATE TABLE tombstones (
    id     TEXT PRIMARY KEY,
    shard  INTEGER NOT NULL,
    status INTEGER NOT NULL,
    buried INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "tombstones" VALUES('gone',1,7,1700000000003);
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
INSERT INTO "workflows" VALUES(1,'order','1','saga',1700000000000,0,X'7B7D');
INSERT INTO "workflows" VALUES(2,'order','2','saga',1700000001000,1,X'7B2261223A317D');
CREATE UNIQUE INDEX runs_ref ON runs (ref);
CREATE UNIQUE INDEX runs_id ON runs (id);
CREATE INDEX runs_status ON runs (workflow, status, created, ref);
CREATE INDEX runs_key ON runs (key, created, ref) WHERE key IS NOT NULL;
CREATE INDEX runs_failed ON runs (failed_step, created, ref) WHERE failed_step IS NOT NULL;
CREATE INDEX runs_unfinished ON runs (ref, wake, status) WHERE status < 4;
CREATE INDEX runs_due ON runs (ref >> 40, wake, ref, status) WHERE wake IS NOT NULL AND status < 4;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('schema_versions',4);
COMMIT;
