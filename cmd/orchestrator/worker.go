package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

func newWorker(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "worker",
		Aliases: []string{"workers"},
		Short:   "List workers and drain them",
		Long:    "Workers carry out the tasks of a service. They announce themselves over the broker about once a second.",
		Args:    anyArgs,
		RunE:    groupHelp,
	}
	cmd.AddCommand(c.workerList(), c.workerDrain())
	return cmd
}

func (c *cli) workerList() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the workers that the orchestrator knows",
		Long: `Lists workers with their load. States: ready; draining (finishes and leaves);
unreachable (its queue is gone, its tasks move to others); silent (no heartbeat:
counted as lost after three intervals); incompatible (it speaks no protocol version
of this orchestrator, and gets no tasks: the reason follows the list).`,
		Example: "  orchestrator worker list\n  orchestrator worker list -o json | jq '.workers[] | select(.state != \"ready\")'",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			list, err := cl.Workers(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(rest.WorkerList{Workers: list}, func() error {
				if len(list) == 0 {
					return c.nothing("No worker is known. One appears here about a second after it has started with the same broker and namespace.")
				}
				t := c.newTable("name", "service", "state", "outstanding", "running", "queued", "capacity", "weight", "release", "protocol", "seen", "id")
				for _, w := range list {
					t.AppendRow(table.Row{
						render.Clean(w.Name), render.Clean(w.Service), c.style.State(w.State, w.State), w.Outstanding,
						w.Running, w.Queued, w.Capacity, w.Weight, render.Clean(w.Release), render.Clean(w.Protocol), c.ago(w.LastSeen), render.Clean(w.ID),
					})
				}
				t.Render()
				for _, w := range list {
					if w.Problem != "" {
						fmt.Fprintln(c.out, c.style.Bad(render.Clean(w.Problem)))
					}
				}
				return nil
			})
		},
	}
	c.outputFlag(cmd)
	return cmd
}

func (c *cli) workerDrain() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "drain ID",
		Short:   "Ask a worker to finish what it runs and to leave",
		Long:    "Asks a worker to take no new tasks, to finish those it runs, and to leave. Its part of the ring moves to the others at once.",
		Example: "  orchestrator worker drain payments-1",
		Args:    args("ID"),
		RunE: func(cmd *cobra.Command, given []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			if err := cl.Drain(cmd.Context(), given[0]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.out, "%s was asked to drain; \"orchestrator worker list\" shows how far it is\n", render.Clean(given[0]))
			return err
		},
	}
	return cmd
}

func newRing(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ring",
		Short: "Show where keys go",
		Long:  "Each service has a consistent-hash ring of its workers. The routing key of a run says which of them gets its tasks.",
		Args:  anyArgs,
		RunE:  groupHelp,
	}
	var taskType, key string
	show := &cobra.Command{
		Use:     "show SERVICE",
		Short:   "Show a service's ring",
		Long:    "Shows the workers on a service's ring with the share that each owns; with --type, only those that serve this task type. With --key it says to which worker that key goes, and to whom it would go if that one left.",
		Example: "  orchestrator ring show payments\n  orchestrator ring show payments --type payments.charge@2 --key c-7",
		Args:    args("SERVICE"),
		RunE: func(cmd *cobra.Command, given []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			ring, err := cl.Ring(cmd.Context(), given[0], taskType, key)
			if err != nil {
				return err
			}
			return c.print(ring, func() error { return c.showRing(ring) })
		},
	}
	show.Flags().StringVar(&taskType, "type", "", "a task type, with its version if it has one: only the workers that serve it")
	show.Flags().StringVar(&key, "key", "", "a routing key: say where it goes")
	c.outputFlag(show)
	cmd.AddCommand(show)
	return cmd
}

func (c *cli) showRing(r rest.Ring) error {
	if len(r.Members) == 0 {
		return c.nothing("No worker serves %s now: its tasks wait until one comes.", render.Clean(cmp.Or(r.TaskType, r.Service)))
	}
	t := c.newTable("name", "share", "", "weight", "outstanding", "worker")
	for _, m := range r.Members {
		bar := strings.Repeat("█", int(m.Share*40+0.5))
		t.AppendRow(table.Row{render.Clean(m.Name), fmt.Sprintf("%.1f%%", m.Share*100), bar, m.Weight, m.Outstanding, render.Clean(m.Worker)})
	}
	t.Render()
	if r.Owner != "" {
		fmt.Fprintln(c.out)
		c.pairs(c.out, "key", render.Clean(r.Key), "goes to", c.style.Bold(render.Clean(r.Owner)), "then to", render.Clean(strings.Join(r.Fallback, ", ")))
	}
	return nil
}

func newStats(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "stats",
		Short:   "Show the system at a glance",
		Long:    "Counts runs by workflow and status, and shows the tasks that wait in the orchestrator and who could take them.",
		Example: "  orchestrator stats\n  orchestrator stats -o json",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			stats, err := cl.Stats(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(stats, func() error { c.showStats(stats); return nil })
		},
	}
	c.outputFlag(cmd)
	return cmd
}

func (c *cli) showStats(s rest.Stats) {
	t := c.newTable("workflow", "running", "compensating", "stalled", "succeeded", "compensated", "committed", "aborted")
	for _, name := range slices.Sorted(maps.Keys(s.Runs)) {
		row := table.Row{render.Clean(name)}
		for _, status := range runStatuses {
			n := s.Runs[name][status]
			cell := fmt.Sprint(n)
			if n > 0 && status == "stalled" {
				cell = c.style.Bad(cell)
			}
			row = append(row, cell)
		}
		t.AppendRow(row)
	}
	if len(s.Runs) > 0 {
		t.Render()
		fmt.Fprintln(c.out)
	}
	c.pairs(c.out, "tasks in flight", fmt.Sprint(s.InFlight), "runs in memory", fmt.Sprint(s.Resident))
	for _, q := range s.Waiting {
		if q.Waiting == 0 {
			continue
		}
		who := render.Count(q.Workers, "worker serves", "workers serve") + " it"
		if q.Workers == 0 {
			who = c.style.Warn("no worker serves it")
		}
		fmt.Fprintf(c.out, "%s of %s/%s wait; %s\n", render.Count(q.Waiting, "task", "tasks"), render.Clean(q.Service), render.Clean(q.Type), who)
	}
}
