package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/postgres"
)

// slowCommit is from when on a durable write of a server deserves a word.
const slowCommit = 20 * time.Millisecond

// checkServer looks at a database on a PostgreSQL server, and how long something takes
// to become durable there.
func checkServer(ctx context.Context, s settings, db string) finding {
	cfg := s.postgresConfig(db, nil, nil)
	name := maskedDB(db)
	there, err := postgres.Exists(ctx, cfg)
	if err != nil {
		return fail("start PostgreSQL, or correct --db: the address, the user, the password, sslmode", "%s: %v", name, err)
	}
	if !there {
		return ok("%s answers; the schema %q does not exist yet, and is made at the first start", name, s.Namespace)
	}
	st, err := postgres.Open(ctx, cfg)
	switch {
	case errors.Is(err, store.ErrNewerSchema):
		return fail("use the newer version of this program that wrote it", "%v", err)
	case errors.Is(err, store.ErrShardCount):
		return fail("leave --shards out", "%v", err)
	case err != nil:
		return fail("correct what it says; the user needs all rights in the schema", "%v", err)
	}
	defer st.Close()
	if err := st.Check(ctx); err != nil {
		return fail("bring back a copy of the database", "%v", err)
	}
	runs, err := countRuns(ctx, st)
	if err != nil {
		return fail("bring back a copy of the database", "%v", err)
	}
	median, err := timeNotes(ctx, st)
	if err != nil {
		return fail("give the user all rights in the schema", "writing: %v", err)
	}
	const found = "%s, schema %q, is sound; %d shards, %s; a durable write takes %s at the median"
	values := []any{name, s.Namespace, st.Shards(), render.Count(runs, "run", "runs"), render.Duration(median)}
	if median > slowCommit {
		return warn("use a faster disk for the server's WAL, or a network with less delay; every step of a saga waits for some of these", found, values...)
	}
	return ok(found, values...)
}

// timeNotes is how long it takes to keep a note, at the median.
func timeNotes(ctx context.Context, st store.Store) (time.Duration, error) {
	const note = "doctor"
	var took []time.Duration
	for range 9 {
		start := time.Now()
		if err := st.SetNote(ctx, note, []byte("measuring")); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)/2], st.SetNote(ctx, note, nil)
}
