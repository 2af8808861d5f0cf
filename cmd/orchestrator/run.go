package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

func newRun(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "run",
		Aliases: []string{"runs"},
		Short:   "Start, list, show, wait for and settle runs",
		Long: `A run is one execution of a workflow. It is running until all its steps have
succeeded; when one fails for good it is compensating, which undoes those that
succeeded, and ends as compensated. Where a step can neither be done nor undone
the run is stalled: it holds its place and waits for you to retry, skip or
resolve that step.`,
		Args: anyArgs,
		RunE: groupHelp,
	}
	cmd.AddCommand(c.runStart(), c.runList(), c.runShow(), c.runItems(), c.runWhy(), c.runHistory(), c.runWait(),
		c.runSignal(), c.runCancel(), c.runRetry(), c.runSkip(), c.runResolve())
	return cmd
}

// startFlags are the flags of run start.
type startFlags struct {
	id, input, key, deadline string
	tags                     []string
	priority                 int
	waitOption
}

func (c *cli) runStart() *cobra.Command {
	var f startFlags
	cmd := &cobra.Command{
		Use:   "start WORKFLOW",
		Short: "Start a run",
		Long: `Starts a run of a workflow's active version and returns once that is durable.

The id is the run's idempotency key: starting again with the same id, workflow
and input changes nothing and succeeds; with another input it is refused.
Without --id the run gets a new id, which is printed.

With --wait the command stays until the run has ended or stalled, shows how it
goes on a terminal, and exits with 3 unless it succeeded.`,
		Example: `  orchestrator run start order-flow --id order-1042 --input '{"customer_id":"c-7","total":4200}'
  orchestrator run start order-flow --input @order.json --tag region=eu --wait
  jq .order big.json | orchestrator run start order-flow --input - -o json`,
		Args: args("WORKFLOW"),
		RunE: func(cmd *cobra.Command, given []string) error { return c.startOne(cmd, given[0], &f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.input, "input", "", "the run's input: JSON, @FILE, or - for the standard input")
	fl.StringVar(&f.id, "id", "", "idempotency key and id of the run; made if absent")
	fl.StringVar(&f.key, "key", "", "routing key; by default what the workflow says, else the id")
	fl.IntVar(&f.priority, "priority", 0, "0 to 9: where tasks wait, higher ones go first")
	fl.StringArrayVar(&f.tags, "tag", nil, "a label to search by, as name=value; may be repeated")
	fl.StringVar(&f.deadline, "deadline", "", "turn back if the pivot is not passed by then: a duration from now such as 1h, or a time as RFC 3339")
	f.add(cmd)
	c.outputFlag(cmd)
	return cmd
}

func (c *cli) startOne(cmd *cobra.Command, workflow string, f *startFlags) error {
	s := rest.Start{Workflow: workflow, ID: f.id, Key: f.key, Priority: f.priority}
	err := f.check()
	if err != nil {
		return err
	}
	if s.Input, err = c.parseInput("input", f.input); err != nil {
		return err
	}
	for _, tag := range f.tags {
		name, value, ok := strings.Cut(tag, "=")
		if !ok || name == "" {
			return usage("--tag %q: expected name=value", tag)
		}
		if s.Tags == nil {
			s.Tags = map[string]string{}
		}
		s.Tags[name] = value
	}
	if f.deadline != "" {
		t, err := c.timeFlag("deadline", f.deadline, 1)
		if err != nil {
			return err
		}
		s.Deadline = &t
	}
	cl, err := c.connect()
	if err != nil {
		return err
	}
	started, err := cl.StartRun(cmd.Context(), s)
	if err != nil {
		return err
	}
	if f.wait {
		return c.waitFor(cmd.Context(), cl, started.ID, f.waitFlags)
	}
	return c.print(started, func() error {
		what := "started"
		if !started.Created {
			what = "exists already, with this workflow and input; it is " + started.Status
		}
		_, err := fmt.Fprintf(c.out, "%s %s\n", started.ID, what)
		return err
	})
}

// timeFlag reads a time: RFC 3339, or a duration that is added to now (sign 1)
// or taken from it (sign -1).
func (c *cli) timeFlag(flag, value string, sign int) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, value); err == nil {
		return t, nil
	}
	text, days := strings.CutSuffix(value, "d")
	if days {
		text += "h"
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return time.Time{}, usage("--%s %q: expected a duration such as 90s, 2h or 7d, or a time such as 2030-01-31T12:00:00Z", flag, value)
	}
	if days {
		d *= 24
	}
	if sign < 0 {
		d = -d
	}
	return c.now().Add(d), nil
}

// listFlags are the flags of run list.
type listFlags struct {
	client.Filter
	since, until string
	all          bool
}

func (c *cli) runList() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List runs, newest first",
		Long: `Lists runs, newest first, and says how to get the next page. Filters add up.
A run's status is running, compensating, stalled, succeeded, compensated,
committed or aborted.`,
		Example: `  orchestrator run list --status stalled
  orchestrator run list --parent order-1042
  orchestrator run list --workflow order-flow --status compensated --since 2h
  orchestrator run list --failed-step pay --all -o json | jq -r '.runs[].id'`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.listRuns(cmd, &f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.Workflow, "workflow", "", "of this workflow")
	fl.StringSliceVar(&f.Statuses, "status", nil, "in this status; several with commas between")
	fl.StringVar(&f.Key, "key", "", "with this routing key")
	fl.StringVar(&f.Tag, "tag", "", "with this label, as name=value")
	fl.StringVar(&f.IDPrefix, "id-prefix", "", "whose id begins so")
	fl.StringVar(&f.FailedStep, "failed-step", "", "turned or stalled by this step")
	fl.StringVar(&f.Parent, "parent", "", "children of this run")
	fl.StringVar(&f.since, "since", "", "created since: a duration ago such as 2h, or a time as RFC 3339")
	fl.StringVar(&f.until, "until", "", "created before: a duration ago, or a time")
	fl.IntVar(&f.Limit, "limit", 50, "at most this many, 1 to 1000")
	fl.StringVar(&f.Cursor, "cursor", "", "go on from here: what the page before said")
	fl.BoolVar(&f.all, "all", false, "all pages")
	_ = cmd.RegisterFlagCompletionFunc("status", cobra.FixedCompletions(
		[]string{"running", "compensating", "stalled", "succeeded", "compensated", "committed", "aborted"}, cobra.ShellCompDirectiveNoFileComp))
	c.outputFlag(cmd)
	return cmd
}

func (c *cli) listRuns(cmd *cobra.Command, f *listFlags) error {
	var err error
	if f.since != "" {
		if f.Since, err = c.timeFlag("since", f.since, -1); err != nil {
			return err
		}
	}
	if f.until != "" {
		if f.Until, err = c.timeFlag("until", f.until, -1); err != nil {
			return err
		}
	}
	cl, err := c.connect()
	if err != nil {
		return err
	}
	page := rest.RunPage{Runs: []rest.Run{}}
	if f.all {
		f.Limit = 1000
		for run, err := range cl.All(cmd.Context(), f.Filter) {
			if err != nil {
				return err
			}
			page.Runs = append(page.Runs, run)
		}
	} else if page, err = cl.List(cmd.Context(), f.Filter); err != nil {
		return err
	}
	return c.print(page, func() error { return c.showRuns(page) })
}

func (c *cli) showRuns(page rest.RunPage) error {
	if len(page.Runs) == 0 {
		return c.nothing("No run matches.")
	}
	t := c.newTable("id", "workflow", "status", "started", "took", "failed step", "error")
	for _, r := range page.Runs {
		took := ""
		if r.Ended != nil {
			took = render.Duration(r.Ended.Sub(r.Created))
		}
		t.AppendRow(table.Row{
			render.Clean(r.ID), render.Clean(r.Workflow), c.style.State(r.Status, statusText(r)), c.ago(r.Created), took,
			render.Clean(r.FailedStep), render.Shorten(render.Clean(r.Error), 60),
		})
	}
	t.Render()
	if page.Next != "" {
		return c.nothing("There are more: --cursor %s, or --all.", page.Next)
	}
	return nil
}

// statusText adds to a run's status that something was left undone.
func statusText(r rest.Run) string {
	if r.Waived {
		return r.Status + " (waived)"
	}
	return r.Status
}
