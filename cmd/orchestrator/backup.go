package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
)

// storeCopy is what backup and restore print with -o json.
type storeCopy struct {
	File       string `json:"file"`
	Bytes      int64  `json:"bytes"`
	Schema     int64  `json:"schema"`
	Shards     uint32 `json:"shards"`
	Runs       int64  `json:"runs"`
	Unfinished int64  `json:"unfinished"`
	Replaced   string `json:"replaced,omitempty"`
}

func newStoreCopy(file string, c sqlite.Copy) storeCopy {
	return storeCopy{file, c.Bytes, c.Schema, c.Shards, c.Runs, c.Unfinished, c.Replaced}
}

func (s storeCopy) String() string {
	return fmt.Sprintf("%s, of which %d have not ended; %s, schema %d, checked", render.Count(int(s.Runs), "run", "runs"), s.Unfinished, bytesText(uint64(s.Bytes)), s.Schema)
}

func newBackup(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the SQLite database, also while an orchestrator runs",
		Long: `Writes a copy of the SQLite database into a new file, and checks it. The
orchestrator may run and go on meanwhile: the copy is its state at one moment.
Run it on the orchestrator's machine, as a user who may read and write the
database's folder. It reads the settings that "serve" would read, and takes db
from them.

While a copy is made, the log beside the database (-wal) grows by all that is
committed. The copy lies on the same machine: move it to another.

A PostgreSQL database is copied with PostgreSQL's own tools: see the page on
operations.`,
		Example: "  orchestrator backup --db /var/lib/ringmaster/ringmaster.db /backup/ringmaster-$(date +%F).db\n  RINGMASTER_CONFIG=/etc/ringmaster.yaml orchestrator backup /backup/today.db -o json",
		Args:    args("FILE"),
		RunE: func(cmd *cobra.Command, given []string) error {
			path, err := sqliteFile(cmd)
			if err != nil {
				return err
			}
			made, err := sqlite.Backup(cmd.Context(), path, given[0])
			if errors.Is(err, os.ErrExist) {
				return fmt.Errorf("%w\nA backup never replaces a file; give it a new name", err)
			}
			if err != nil {
				return err
			}
			s := newStoreCopy(given[0], made)
			return c.print(s, func() error {
				fmt.Fprintf(c.out, "%s is a copy of %s: %s\n", given[0], path, s)
				return nil
			})
		},
	}
	copyFlags(c, cmd)
	return cmd
}

func newRestore(c *cli) *cobra.Command {
	var replace bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup in the place of the SQLite database",
		Long: `Checks a copy that "orchestrator backup" has made and puts it in the place of the
database. Stop the workers, then the orchestrator, before; start the orchestrator,
then the workers, after. The copy stays where it is. With --replace, a database
that is there is kept under another name, which is printed.

What happened after the copy was made is not in it: runs started since are gone,
and runs that went on since go on from where they were, under the same
idempotency keys.`,
		Example: "  orchestrator restore --db /var/lib/ringmaster/ringmaster.db --replace /backup/ringmaster-2026-01-31.db",
		Args:    args("FILE"),
		RunE: func(cmd *cobra.Command, given []string) error {
			path, err := sqliteFile(cmd)
			if err != nil {
				return err
			}
			restored, err := sqlite.Restore(cmd.Context(), given[0], path, replace)
			switch {
			case errors.Is(err, store.ErrLocked):
				return fmt.Errorf("%w\nStop the orchestrator first", err)
			case errors.Is(err, os.ErrExist):
				return fmt.Errorf("%w\nTo put the copy in its place, give --replace; what is there is kept under another name", err)
			case errors.Is(err, store.ErrNewerSchema):
				return fmt.Errorf("%w\nUse the newer version of this program that wrote it", err)
			case err != nil:
				return err
			}
			s := newStoreCopy(path, restored)
			return c.print(s, func() error {
				fmt.Fprintf(c.out, "%s is restored from %s: %s\n", path, given[0], s)
				if s.Replaced != "" {
					fmt.Fprintf(c.out, "what was there is kept as %s\n", s.Replaced)
				}
				return nil
			})
		},
	}
	copyFlags(c, cmd)
	cmd.Flags().BoolVar(&replace, "replace", false, "replace a database that is there; it is kept under another name")
	return cmd
}

// copyFlags adds the settings of serve, of which only some matter here: one
// file and one environment serve all commands.
func copyFlags(c *cli, cmd *cobra.Command) {
	daemonFlags(cmd.Flags(), "info")
	cmd.Flags().String("amqp-url", "", "")
	cmd.Flags().String("leases", "", leasesFlag)
	cmd.Flags().Duration("lease-time", lock.DefaultTTL, leaseTimeFlag)
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Hidden = f.Name != "config" })
	cmd.Flags().String("db", defaultServeDB, "SQLite file of the orchestrator")
	c.outputFlag(cmd)
}

// sqliteFile is the database that the settings name.
func sqliteFile(cmd *cobra.Command) (string, error) {
	s, _, err := loadSettings(cmd)
	if err != nil {
		return "", err
	}
	if s.onServer() {
		return "", usage("%s %q: this command copies SQLite files; a server's own tools copy its databases", s.origin("db"), maskedDB(s.DB))
	}
	return s.file(), nil
}
