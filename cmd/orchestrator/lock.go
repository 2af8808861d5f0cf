package main

import (
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

func newLock(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "lock",
		Aliases: []string{"locks"},
		Short:   "List named locks",
		Long: `Runs of workflows with lock expressions hold named locks from before their first
step until they have ended. A stalled run holds its locks until it is settled.`,
		Args: anyArgs,
		RunE: groupHelp,
	}
	cmd.AddCommand(c.lockList())
	return cmd
}

func (c *cli) lockList() *cobra.Command {
	var f rest.LockFilter
	cmd := &cobra.Command{
		Use:     "list [NAME]",
		Aliases: []string{"ls"},
		Short:   "List the locks that runs hold, and who waits",
		Long:    "Lists the named locks that runs hold, by name; with NAME, that one alone. Those who share a lock hold it together.",
		Example: "  orchestrator lock list\n  orchestrator lock list account/42\n  orchestrator lock list -o json | jq '.locks[] | select(.waiting_count > 10)'",
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) > 1 {
				return usage("%s: unexpected argument %q\nUsage: %s", cmd.CommandPath(), given[1], cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				f.Name = given[0]
			}
			cl, err := c.connect()
			if err != nil {
				return err
			}
			page, err := cl.Locks(cmd.Context(), f)
			if err != nil {
				return err
			}
			return c.print(page, func() error { return c.showLocks(page, f.Name) })
		},
	}
	cmd.Flags().IntVar(&f.Limit, "limit", 50, "locks to list, up to 1000")
	cmd.Flags().StringVar(&f.Cursor, "cursor", "", "go on after a page: its member next")
	c.outputFlag(cmd)
	return cmd
}

func (c *cli) showLocks(page rest.LockPage, name string) error {
	if len(page.Locks) == 0 && name != "" {
		return c.nothing("Nobody holds lock %s.", render.Clean(name))
	}
	if len(page.Locks) == 0 {
		return c.nothing("Nobody holds a named lock.")
	}
	const most = 3
	t := c.newTable("lock", "held by", "since", "waiting", "next", "token")
	for _, l := range page.Locks {
		var holders []string
		for i, h := range l.Holders {
			if i == most {
				holders = append(holders, fmt.Sprintf("and %d more", len(l.Holders)-most))
				break
			}
			holders = append(holders, render.Clean(h.Run))
		}
		held := strings.Join(holders, ", ")
		if l.Shared {
			held += " (shared)"
		}
		next := ""
		if len(l.Waiting) > 0 {
			next = render.Clean(l.Waiting[0].Run)
		}
		t.AppendRow(table.Row{render.Clean(l.Name), held, c.ago(l.Holders[0].Since), l.WaitingCount, next, fmt.Sprint(l.Token)})
	}
	t.Render()
	if page.Next != "" {
		return c.nothing("There are more: go on with --cursor %s", shellQuote(page.Next))
	}
	return nil
}
