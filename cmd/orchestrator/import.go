package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ringmaster-dev/ringmaster/archive"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/store"
)

func newImport(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import FILE...",
		Short: "Bring exported or archived runs into a database",
		Long: `Reads files that "orchestrator export" or --archive has written (- is the standard
input) into a database: a SQLite file that no orchestrator has open, or PostgreSQL,
whose orchestrators must have been stopped. It may be of another kind, and have
another number of shards, than the one that the runs come from.

A run that is there with the same history is left, so an import can be repeated.
A run that was removed comes back. What contradicts something that is there is left
out and reported, and the exit status is 1. At a line that breaks a rule the import
ends, and says which; what came before it stays.

Runs that have not ended go on when an orchestrator opens the database. They must
not go on where they came from.`,
		Example: `  orchestrator export --db ringmaster.db --all all.jsonl
  orchestrator import --db postgres://ringmaster@db/ringmaster all.jsonl`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return usage("%s: FILE is missing\nUsage: %s", cmd.CommandPath(), cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, given []string) error { return c.importFiles(cmd, given) },
	}
	databaseFlags(cmd)
	return cmd
}

func (c *cli) importFiles(cmd *cobra.Command, files []string) (err error) {
	for _, path := range files {
		if _, err := os.Stat(path); path != "-" && err != nil {
			return err // before the database is made
		}
	}
	db, err := c.openDatabase(cmd, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.close()) }()
	own, err := db.owner(cmd.Context())
	if err != nil {
		return err
	}
	line := statusLine{w: c.err}
	defer line.clear()
	conflicts := 0
	for _, path := range files {
		cfg := archive.ImportConfig{Store: db.store, Own: own, Conflict: func(x archive.Conflict) {
			fmt.Fprintf(&line, "%s, line %d: run %s is left out: %s\n", path, x.Line, render.Clean(x.ID), render.Clean(x.Why))
		}}
		if isTerminal(c.err) {
			cfg.Progress = func(r archive.Report) { line.show("importing: " + render.Count(r.Runs, "run", "runs")) }
		}
		report, err := c.importFile(cmd.Context(), cfg, path)
		line.clear()
		fmt.Fprintf(c.out, "%s: %s, of which %d have not ended; %s; %d left as they were\n", path, render.Count(report.Runs, "run", "runs"),
			report.Unended, render.Count(report.Tombstones, "tombstone", "tombstones"), report.Left)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		conflicts += report.Conflicts
	}
	if conflicts > 0 {
		return fmt.Errorf("%s left out", render.Count(conflicts, "run was", "runs were"))
	}
	return nil
}

func (c *cli) importFile(ctx context.Context, cfg archive.ImportConfig, path string) (archive.Report, error) {
	in := c.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return archive.Report{}, err
		}
		defer f.Close()
		in = f
	}
	return archive.Import(ctx, cfg, in)
}

// database is a store that a command has opened by itself.
type database struct {
	settings settings
	store    store.Store
	leases   lock.Provider // nil: nobody else can have it open
	session  lock.Session
}

// openDatabase opens the database that the settings name. It must be there if it
// is to be read.
func (c *cli) openDatabase(cmd *cobra.Command, reads bool) (*database, error) {
	s, _, err := loadSettings(cmd)
	if err != nil {
		return nil, err
	}
	if reads && !s.onServer() {
		if _, err := os.Stat(filepath.Clean(s.file())); err != nil {
			return nil, fmt.Errorf("the database: %w", err)
		}
	}
	db := &database{settings: s}
	log := newLogger(c.err, s)
	if db.store, err = openStore(cmd.Context(), s, log, nil); err != nil {
		return nil, err
	}
	if db.leases, err = openLeases(cmd.Context(), s, log); err != nil {
		return nil, errors.Join(err, db.store.Close())
	}
	return db, nil
}

// owner returns what makes sure that nobody owns a shard, and nobody takes it as
// long as the database is open here; nil where nobody can.
func (d *database) owner(ctx context.Context) (func(context.Context, uint32) error, error) {
	if d.leases == nil {
		return nil, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	if d.session, err = d.leases.Open(ctx, lock.SessionConfig{Owner: fmt.Sprintf("orchestrator import on %s (%d)", host, os.Getpid())}); err != nil {
		return nil, fmt.Errorf("open a session of leases: %w", err)
	}
	return func(ctx context.Context, shard uint32) error {
		_, err := d.session.TryLock(ctx, engine.ShardLease(shard))
		if errors.Is(err, lock.ErrHeld) {
			owner, _, _ := d.store.Owner(ctx, shard) // for the message only
			return fmt.Errorf("orchestrator %s owns the shard: stop the orchestrators of this database first", owner)
		}
		return err
	}, nil
}

func (d *database) close() error {
	var errs []error
	if d.session != nil {
		errs = append(errs, d.session.Close(context.Background()))
	}
	if d.leases != nil {
		errs = append(errs, d.leases.Close())
	}
	return errors.Join(append(errs, d.store.Close())...)
}

func statusName(s store.Status) string { return machine.Status(s).String() }
