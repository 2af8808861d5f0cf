package main

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ringmaster-dev/ringmaster/store/spread"
)

// shardPlace is what "shard list" prints of a shard with -o json.
type shardPlace struct {
	Shard    uint32 `json:"shard"`
	Database int    `json:"database"`
	To       int    `json:"to,omitempty"`
	From     int    `json:"from,omitempty"`
	Owner    string `json:"owner,omitempty"`
	Epoch    uint64 `json:"epoch,omitempty"`
}

func newShard(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "shard",
		Short: "Say in which database each shard is, and move shards",
		Long: `Where --db names several PostgreSQL databases, each shard of all runs lies in one
of them. They are known by their position in --db, from 1: new ones go to the end.`,
		Args: anyArgs,
		RunE: groupHelp,
	}
	cmd.AddCommand(c.shardList(), c.shardMove())
	return cmd
}

func (c *cli) shardList() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the shards with their databases and owners",
		Long:    "Lists all shards: in which database each is, and which orchestrator acquired it last. It reads the settings that \"serve\" would read.",
		Example: "  orchestrator shard list --config /etc/ringmaster.yaml\n  orchestrator shard list -o json | jq '.shards[] | select(.database == 2)'",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withShards(cmd, func(ctx context.Context, s *spread.Store) error {
				places, err := s.Places(ctx)
				if err != nil {
					return err
				}
				shown := make([]shardPlace, len(places))
				for i, p := range places {
					shown[i] = shardPlace(p)
				}
				return c.print(map[string]any{"shards": shown}, func() error { return c.showShards(shown) })
			})
		},
	}
	shardFlags(c, cmd)
	return cmd
}

func (c *cli) showShards(places []shardPlace) error {
	t := c.newTable("shard", "database", "owner", "epoch")
	for _, p := range places {
		at := strconv.Itoa(p.Database)
		switch {
		case p.To != 0:
			at += fmt.Sprintf(", moving to %d", p.To)
		case p.From != 0:
			at += fmt.Sprintf(", leaving %d", p.From)
		}
		owner, epoch := p.Owner, strconv.FormatUint(p.Epoch, 10)
		if owner == "" {
			owner, epoch = "nobody yet", ""
		}
		t.AppendRow([]any{p.Shard, at, owner, epoch})
	}
	t.Render()
	return nil
}

func (c *cli) shardMove() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "move SHARD DATABASE",
		Short: "Move a shard to another database",
		Long: `Copies all rows of a shard into another database and removes them from the one
where they were. Orchestrators may run: the shard's owner loses it at once, nobody has
it meanwhile, and calls about its runs are answered with 503; then any takes it over
where it is. A move that was cut short goes on when it is ordered again.`,
		Example: "  orchestrator shard move 3 2 --config /etc/ringmaster.yaml",
		Args:    args("SHARD", "DATABASE"),
		RunE: func(cmd *cobra.Command, given []string) error {
			shard, err := strconv.ParseUint(given[0], 10, 32)
			if err != nil {
				return usage("SHARD %q: expected the number of a shard, from 0", given[0])
			}
			to, err := strconv.Atoi(given[1])
			if err != nil {
				return usage("DATABASE %q: expected the position of a database in --db, from 1", given[1])
			}
			return c.withShards(cmd, func(ctx context.Context, s *spread.Store) error {
				if err := s.Move(ctx, uint32(shard), to); err != nil {
					return err
				}
				return c.print(shardPlace{Shard: uint32(shard), Database: to}, func() error {
					fmt.Fprintf(c.out, "shard %d is in database %d\n", shard, to)
					return nil
				})
			})
		},
	}
	shardFlags(c, cmd)
	return cmd
}

// withShards opens the databases that the settings name.
func (c *cli) withShards(cmd *cobra.Command, do func(context.Context, *spread.Store) error) error {
	s, _, err := loadSettings(cmd)
	if err != nil {
		return err
	}
	if !s.onServer() || len(s.databases()) < 2 {
		return usage("%s %q: shards lie in databases of their own only where several are named: postgres://...,postgres://...", s.origin("db"), maskedDB(s.DB))
	}
	st, err := openSpread(cmd.Context(), s, s.databases(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return err
	}
	err = do(cmd.Context(), st)
	if closeErr := st.Close(); err == nil {
		err = closeErr
	}
	return err
}

// shardFlags adds the settings of serve, of which only db, namespace and config matter here.
func shardFlags(c *cli, cmd *cobra.Command) {
	daemonFlags(cmd.Flags(), "info")
	cmd.Flags().String("amqp-url", "", "")
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Hidden = f.Name != "config" && f.Name != "namespace" })
	cmd.Flags().String("db", defaultServeDB, "the PostgreSQL databases of the orchestrators, with commas between")
	c.outputFlag(cmd)
}
