package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ringmaster-dev/ringmaster/archive"
	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/store"
)

// exportFlags are the flags of export.
type exportFlags struct {
	workflow, since, until string
	statuses               []string
	all, remove            bool

	from, to time.Time // since and until
	direct   bool      // the database is read, not the API asked
}

func newExport(c *cli) *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write runs with their histories as JSON Lines",
		Long: `Writes runs that have ended, with their histories, the definitions of their
workflows, and what is known of runs that were removed, to a file, or to the
standard output without one. A file is there, whole and durable, once the command
has succeeded, and not before. "orchestrator import" reads it.

It asks the orchestrator at --api, which may be at work meanwhile; with --db it
reads the database itself: a SQLite file that no orchestrator has open, or
PostgreSQL.

--all exports runs that have not ended as well, to go on elsewhere. Stop the
orchestrators before: a run must not go on in two places.

--remove then removes from the database what the file has, as --retain does. It
needs --db and a FILE, and no orchestrator may own the shards.`,
		Example: `  orchestrator export runs.jsonl
  orchestrator export --workflow order-flow --until 720h | gzip > old.jsonl.gz
  orchestrator export --db ringmaster.db --until 2160h --remove 2025.jsonl`,
		Args: upTo(1, "FILE"),
		RunE: func(cmd *cobra.Command, given []string) error {
			path := "-"
			if len(given) == 1 {
				path = given[0]
			}
			return c.export(cmd, f, path)
		},
	}
	fl := cmd.Flags()
	databaseFlags(cmd)
	fl.StringVar(&f.workflow, "workflow", "", "of this workflow")
	fl.StringSliceVar(&f.statuses, "status", nil, "in this status; several with commas between")
	fl.StringVar(&f.since, "since", "", "created since: a duration ago such as 2h, or a time as RFC 3339")
	fl.StringVar(&f.until, "until", "", "created before: a duration ago, or a time")
	fl.BoolVar(&f.all, "all", false, "also runs that have not ended")
	fl.BoolVar(&f.remove, "remove", false, "then remove from the database what has been exported")
	return cmd
}

// upTo admits at most n arguments.
func upTo(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) > n {
			return usage("%s: unexpected argument %q; expected at most %d %s\nUsage: %s", cmd.CommandPath(), given[n], n, what, cmd.UseLine())
		}
		return nil
	}
}

// databaseFlags adds the settings of serve, of which only those about the
// database matter here: one file and one environment serve all commands.
func databaseFlags(cmd *cobra.Command) {
	daemonFlags(cmd.Flags(), "warn")
	cmd.Flags().String("amqp-url", "", "")
	cmd.Flags().String("leases", "", leasesFlag)
	cmd.Flags().Duration("lease-time", lock.DefaultTTL, leaseTimeFlag)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		f.Hidden = !slices.Contains([]string{"config", "shards", "namespace", "retain-ids", "leases"}, f.Name)
	})
	cmd.Flags().String("db", defaultServeDB, dbFlag)
}

// check completes the flags.
func (c *cli) checkExport(cmd *cobra.Command, f *exportFlags, path string) (err error) {
	f.direct = cmd.Flags().Changed("db")
	if f.since != "" {
		if f.from, err = c.timeFlag("since", f.since, -1); err != nil {
			return err
		}
	}
	if f.until != "" {
		if f.to, err = c.timeFlag("until", f.until, -1); err != nil {
			return err
		}
	}
	for _, s := range f.statuses {
		if statusOf(s) == 0 {
			return usage("--status %q: expected running, compensating, stalled, succeeded, compensated, committed or aborted", s)
		}
	}
	switch {
	case f.remove && !f.direct:
		return usage("--remove: say with --db from which database; a running orchestrator removes runs by itself, with --retain, and keeps them with --archive")
	case f.remove && path == "-":
		return usage("--remove: give a FILE, so that it is durable what is removed")
	case f.remove && f.all:
		return usage("--remove: runs that have not ended cannot be removed; leave --all out")
	}
	return nil
}

func (c *cli) export(cmd *cobra.Command, f exportFlags, path string) error {
	if err := c.checkExport(cmd, &f, path); err != nil {
		return err
	}
	pages, db, err := c.pages(cmd, &f)
	if err != nil {
		return err
	}
	var n archive.Counts
	line := statusLine{w: c.err}
	progress := func(n archive.Counts) {}
	if isTerminal(c.err) {
		progress = func(n archive.Counts) { line.show("exporting: " + render.Count(n.Runs, "run", "runs")) }
	}
	write := func(w io.Writer) (err error) {
		n, err = archive.Export(cmd.Context(), pages, buildInfo().Version, w, progress)
		return err
	}
	if path == "-" {
		err = write(c.out)
	} else {
		err = archive.WriteFile(path, write)
	}
	line.clear()
	if err == nil {
		fmt.Fprintf(c.err, "exported %s, %s of removed runs, %s\n", render.Count(n.Runs, "run", "runs"),
			render.Count(n.Tombstones, "tombstone", "tombstones"), render.Count(n.Workflows, "definition", "definitions"))
	}
	if err == nil && f.remove {
		err = c.removeExported(cmd.Context(), db, path)
	}
	if db != nil {
		err = errors.Join(err, db.close())
	}
	return err
}

// pages says where the pages of an export come from.
func (c *cli) pages(cmd *cobra.Command, f *exportFlags) (archive.Pages, *database, error) {
	if !f.direct {
		cl, err := c.connect()
		if err != nil {
			return nil, nil, err
		}
		filter := client.Filter{Workflow: f.workflow, Statuses: f.statuses, Since: f.from, Until: f.to}
		return func(ctx context.Context, cursor string, w io.Writer) (string, error) {
			filter.Cursor = cursor
			return cl.ExportPage(ctx, filter, f.all, w)
		}, nil, nil
	}
	db, err := c.openDatabase(cmd, true)
	if err != nil {
		return nil, nil, err
	}
	filter := archive.Filter{All: f.all, Workflow: f.workflow, Since: f.from, Until: f.to}
	for _, s := range f.statuses {
		filter.Statuses = append(filter.Statuses, statusOf(s))
	}
	x := archive.Exporter{Store: db.store, Filter: filter}
	return x.Page, db, nil
}

// removeExported removes from a database what a file has of it.
func (c *cli) removeExported(ctx context.Context, db *database, path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	own, err := db.owner(ctx)
	if err != nil {
		return err
	}
	until := time.Time{}
	if db.settings.RetainIDs > 0 {
		until = c.now().Add(db.settings.RetainIDs).UTC().Truncate(time.Millisecond)
	}
	n, err := archive.Remove(ctx, db.store, in, until, own)
	fmt.Fprintf(c.err, "removed %s\n", render.Count(n, "run", "runs"))
	return err
}

func statusOf(name string) store.Status {
	for s := store.StatusRunning; s <= store.StatusAborted; s++ {
		if statusName(s) == name {
			return s
		}
	}
	return 0
}
