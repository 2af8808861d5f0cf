-- +goose Up

-- Child runs: whose they are, and which step of that run they do; NULL where
-- the run has no parent.
ALTER TABLE runs ADD COLUMN parent TEXT;
ALTER TABLE runs ADD COLUMN parent_step TEXT;

CREATE INDEX runs_parent ON runs (parent, created, ref) WHERE parent IS NOT NULL;
