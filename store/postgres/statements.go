package postgres

// A statement of a commit: its name on the connection, and its text.
type statement struct{ name, sql string }

// The statements of a commit, in the order in which they are sent.
var (
	// guard fails unless the connection is the writer's present one and all
	// epochs are those of their shards. It keeps both so until the end.
	guard = statement{"guard", `
WITH mine AS (
	UPDATE writers SET batch = $3, used = $4 WHERE writer = $1 AND generation = $2 RETURNING 1
), owned AS (
	SELECT 1 FROM unnest($5::integer[], $6::bigint[]) p (shard, epoch)
	JOIN shards s ON s.shard = p.shard AND s.epoch = p.epoch FOR SHARE OF s
)
SELECT 1 / (CASE WHEN (SELECT count(*) FROM mine) = 1 AND (SELECT count(*) FROM owned) = cardinality($5::integer[]) THEN 1 ELSE 0 END)`}

	// A NULL in place of an id says that it has a tombstone.
	insertRuns = statement{"insert_runs", `
INSERT INTO runs (ref, created, updated, ended, wake, input_hash, workflow, status, waived, id,
	key, tags, retry_of, failed_step, error, parent, parent_step)
SELECT u.ref, u.created, u.updated, nullif(u.ended, $18), nullif(u.wake, $18), u.input_hash, u.workflow, u.status, u.waived,
	CASE WHEN t.id IS NULL THEN u.id END, CASE WHEN u.key <> u.id THEN u.key END,
	nullif(u.tags, ''), nullif(u.retry_of, ''), nullif(u.failed_step, ''), nullif(u.error, ''), nullif(u.parent, ''), nullif(u.parent_step, '')
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::uuid[], $7::integer[], $8::smallint[], $9::boolean[],
	$10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[])
	u (ref, created, updated, ended, wake, input_hash, workflow, status, waived, id,
	key, tags, retry_of, failed_step, error, parent, parent_step)
LEFT JOIN tombstones t ON t.id = u.id`}

	insertTags = statement{"insert_tags", `
INSERT INTO tags (name, value, created, ref)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])`}

	// A NULL in place of a number says that there is no such run.
	insertRecords = statement{"insert_records", `
INSERT INTO history (ref, seq, data)
SELECT r.ref, u.seq, u.data FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) u (ref, seq, data)
LEFT JOIN runs r ON r.ref = u.ref`}

	dropRecords = statement{"drop_records", `
DELETE FROM history h USING unnest($1::bigint[], $2::bigint[], $3::bigint[]) u (ref, low, high)
WHERE h.ref = u.ref AND h.seq >= u.low AND h.seq < u.high`}

	// updateRuns also counts. Its last three lists are what new runs add.
	updateRuns = statement{"update_runs", `
WITH u AS MATERIALIZED (
	SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::boolean[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[])
		u (ref, status, waived, updated, ended, wake, failed_step, error)
), old AS MATERIALIZED (
	SELECT r.workflow, r.status AS before, u.status AS after FROM u JOIN runs r ON r.ref = u.ref
), changed AS (
	UPDATE runs r SET status = u.status, waived = u.waived, updated = u.updated, ended = nullif(u.ended, $13), wake = nullif(u.wake, $13),
		failed_step = nullif(u.failed_step, ''), error = nullif(u.error, '')
	FROM u WHERE r.ref = u.ref
)
INSERT INTO counts AS c (bucket, workflow, status, n)
SELECT $9::integer, d.workflow, d.status, sum(d.n)::bigint FROM (
	SELECT workflow, before AS status, -1 AS n FROM old UNION ALL
	SELECT workflow, after, 1 FROM old UNION ALL
	SELECT * FROM unnest($10::integer[], $11::smallint[], $12::bigint[])
) d (workflow, status, n) GROUP BY d.workflow, d.status HAVING sum(d.n) <> 0 ORDER BY d.workflow, d.status
ON CONFLICT (bucket, workflow, status) DO UPDATE SET n = c.n + excluded.n`}

	putLocks = statement{"put_locks", `
INSERT INTO locks (shard, name, data)
SELECT * FROM unnest($1::integer[], $2::bytea[], $3::bytea[])
ON CONFLICT (shard, name) DO UPDATE SET data = excluded.data`}

	dropLocks = statement{"drop_locks", `
DELETE FROM locks l USING unnest($1::integer[], $2::bytea[]) u (shard, name)
WHERE l.shard = u.shard AND l.name = u.name`}

	// Of runs that are removed, the tags go first, since their rows tell them.
	dropTags = statement{"drop_tags", `
DELETE FROM tags t USING unnest($1::bigint[]) u (ref) JOIN runs r ON r.ref = u.ref CROSS JOIN LATERAL json_each_text(r.tags::json) j
WHERE t.name = j.key AND t.value = j.value AND t.created = r.created AND t.ref = r.ref`}

	dropHistory = statement{"drop_history", "DELETE FROM history h USING unnest($1::bigint[]) u (ref) WHERE h.ref = u.ref"}

	// dropRuns fails where a run has not ended.
	dropRuns = statement{"drop_runs", `
WITH gone AS (
	DELETE FROM runs r USING unnest($1::bigint[]) u (ref) WHERE r.ref = u.ref RETURNING r.ref, r.workflow, r.status
), noted AS (
	UPDATE shards s SET removed = greatest(s.removed, g.last)
	FROM (SELECT (ref >> 40)::integer AS shard, max(ref) AS last FROM gone GROUP BY 1) g WHERE s.shard = g.shard
)
INSERT INTO counts AS c (bucket, workflow, status, n)
SELECT $2::integer, workflow, status, -count(*) / (CASE WHEN status < 4 THEN 0 ELSE 1 END)
FROM gone GROUP BY workflow, status ORDER BY workflow, status
ON CONFLICT (bucket, workflow, status) DO UPDATE SET n = c.n + excluded.n`}

	// A NULL in place of an id says that a run has it.
	bury = statement{"bury", `
INSERT INTO tombstones (buried, until, created, ended, input_hash, shard, workflow, status, waived, id)
SELECT u.buried, nullif(u.until, $11), nullif(u.created, $11), nullif(u.ended, $11), u.input_hash, u.shard, nullif(u.workflow, 0), u.status, u.waived,
	CASE WHEN r.id IS NULL THEN u.id END
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::integer[], $7::integer[], $8::smallint[], $9::boolean[], $10::text[])
	u (buried, until, created, ended, input_hash, shard, workflow, status, waived, id)
LEFT JOIN runs r ON r.id = u.id`}

	forget = statement{"forget", `
DELETE FROM tombstones t USING unnest($1::text[], $2::integer[]) u (id, shard) WHERE t.id = u.id AND t.shard = u.shard`}
)

// statements are all that are prepared for a connection that commits.
var statements = []statement{
	guard, insertRuns, insertTags, insertRecords, dropRecords, updateRuns, putLocks, dropLocks,
	dropTags, dropHistory, dropRuns, bury, forget,
}
