-- +goose Up

-- Ended runs that are old are removed and leave a tombstone, which tells what
-- they were: NULL (0 in waived) where there never was a run. Tombstones go as
-- well, from until on; NULL is never.
ALTER TABLE tombstones ADD COLUMN until INTEGER;
ALTER TABLE tombstones ADD COLUMN workflow INTEGER;
ALTER TABLE tombstones ADD COLUMN input_hash BLOB;
ALTER TABLE tombstones ADD COLUMN waived INTEGER NOT NULL DEFAULT 0;
ALTER TABLE tombstones ADD COLUMN created INTEGER;
ALTER TABLE tombstones ADD COLUMN ended INTEGER;

CREATE INDEX tombstones_until ON tombstones (shard, until, id) WHERE until IS NOT NULL;

-- In the order of their end, whatever their shard: runs that end with one commit
-- go to one place. Who looks for those of a shard passes over the others.
CREATE INDEX runs_ended ON runs (ended, ref) WHERE ended IS NOT NULL;

-- The highest number of a run that was removed from the shard, or 0: numbers
-- are not given again.
ALTER TABLE shards ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;
