-- +goose Up

-- Named locks that are held: the queue of each, as its shard's owner encodes it.
CREATE TABLE locks (
    shard INTEGER NOT NULL,
    name  TEXT NOT NULL,
    data  BLOB NOT NULL,
    PRIMARY KEY (shard, name)
) STRICT, WITHOUT ROWID;
