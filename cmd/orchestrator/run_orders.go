package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// operator is who gives an order, for the run's history.
func operator() string {
	for _, name := range []string{"RINGMASTER_OPERATOR", "USER", "LOGNAME"} {
		if v := os.Getenv(name); v != "" {
			return v
		}
	}
	return ""
}

func byFlag(cmd *cobra.Command, by *string) {
	cmd.Flags().StringVar(by, "by", operator(), "who gives this order, for the run's history (env RINGMASTER_OPERATOR)")
	cmd.Flags().Lookup("by").DefValue = "" // the help must not depend on who reads it
}

func (c *cli) runCancel() *cobra.Command {
	var (
		o rest.Cancel
		f waitOption
	)
	cmd := &cobra.Command{
		Use:   "cancel ID",
		Short: "Ask a run to turn back",
		Long: `Asks a run to turn back: no new step starts, and those that succeeded are undone.
A run that has passed its pivot only goes forward; there the request is recorded
and changes nothing. With --wait the command stays until the run has ended or
stalled; a run that was undone ends as compensated or aborted: exit status 3.`,
		Example: "  orchestrator run cancel order-1042 --reason 'customer called'\n  orchestrator run cancel order-1042 --wait --timeout 1m",
		Args:    args("ID"),
		RunE: func(cmd *cobra.Command, given []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			run, err := cl.Cancel(cmd.Context(), given[0], o)
			if err != nil {
				return err
			}
			return c.ordered(cmd.Context(), cl, run, f)
		},
	}
	cmd.Flags().StringVar(&o.Reason, "reason", "", "why, for the run's history")
	byFlag(cmd, &o.By)
	c.orderFlags(cmd, &f)
	return cmd
}

// orderFlags gives a command that orders something of a run --wait and -o.
func (c *cli) orderFlags(cmd *cobra.Command, f *waitOption) {
	f.add(cmd)
	cmd.PreRunE = func(*cobra.Command, []string) error { return f.check() }
	c.outputFlag(cmd)
}

// ordered says how a run is after an order, or waits for it.
func (c *cli) ordered(ctx context.Context, cl *client.Client, run rest.Run, f waitOption) error {
	if f.wait {
		return c.waitFor(ctx, cl, run.ID, f.waitFlags)
	}
	return c.print(run, func() error {
		_, err := fmt.Fprintf(c.out, "%s is %s\n", render.Clean(run.ID), c.style.State(run.Status, statusText(run)))
		return err
	})
}

func (c *cli) runRetry() *cobra.Command {
	var (
		o     rest.Settle
		f     waitOption
		input string
	)
	cmd := &cobra.Command{
		Use:   "retry ID",
		Short: "Try a stalled step again, or start an ended run anew",
		Long: `Of a stalled run: tries the stalled step again, with fresh attempts. --input gives
it another input, which is allowed only where the attempts so far are known to
have had no effect.

Of an ended run: starts a new run with the same workflow and input (or --input),
linked to the old one; its id is printed. An ended run is never reopened. --wait
waits for the new one.`,
		Example: "  orchestrator run retry order-1042\n  orchestrator run retry order-1042 --step pay --input '{\"amount\":4100}'\n  orchestrator run retry order-1042 --new-id order-1042-again",
		Args:    args("ID"),
		RunE: func(cmd *cobra.Command, given []string) error {
			var err error
			if o.Input, err = c.parseInput("input", input); err != nil {
				return err
			}
			cl, err := c.connect()
			if err != nil {
				return err
			}
			run, err := cl.Retry(cmd.Context(), given[0], o)
			if err != nil {
				return err
			}
			if run.RetryOf == given[0] && c.format != "json" {
				fmt.Fprintf(c.out, "new run, linked to %s: ", render.Clean(given[0]))
			}
			return c.ordered(cmd.Context(), cl, run, f)
		},
	}
	c.settleFlags(cmd, &o, &f)
	cmd.Flags().StringVar(&input, "input", "", "another input: JSON, @FILE, or - for the standard input")
	cmd.Flags().StringVar(&o.ID, "new-id", "", "id of the new run that the retry of an ended run starts")
	return cmd
}

func (c *cli) settleFlags(cmd *cobra.Command, o *rest.Settle, f *waitOption) {
	cmd.Flags().StringVar(&o.Step, "step", "", "the stalled step; may be left out where there is one only")
	cmd.Flags().StringVar(&o.Reason, "reason", "", "why, for the run's history")
	byFlag(cmd, &o.By)
	c.orderFlags(cmd, f)
}

func (c *cli) runSkip() *cobra.Command {
	var (
		o rest.Settle
		f waitOption
	)
	cmd := &cobra.Command{
		Use:   "skip ID --reason TEXT",
		Short: "Leave a stalled step undone and go on",
		Long: `Goes on without a stalled step. Where that is a compensation, an effect stays in
the world that the run was to take back: the run is marked as waived, for ever
visible, and the reason is kept.`,
		Example: "  orchestrator run skip order-1042 --step pay --reason 'refunded by hand, ticket 17'",
		Args:    args("ID"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if o.Reason == "" {
				return usage("--reason is missing: say why the step may be left undone; it is kept in the run's history")
			}
			cl, err := c.connect()
			if err != nil {
				return err
			}
			run, err := cl.Skip(cmd.Context(), given[0], o)
			if err != nil {
				return err
			}
			return c.ordered(cmd.Context(), cl, run, f)
		},
	}
	c.settleFlags(cmd, &o, &f)
	return cmd
}

func (c *cli) runResolve() *cobra.Command {
	var (
		o      rest.Settle
		f      waitOption
		output string
		failed bool
	)
	cmd := &cobra.Command{
		Use:   "resolve ID --applied|--not-applied --reason TEXT",
		Short: "Say how a stalled step really ended",
		Long: `Tells the orchestrator what you found out about a stalled step: that its effect
has happened (--applied, with the step's --output-json if later steps read it), or
that it has not (--not-applied, which is for a pivot and for a participant that is
the only one; whatever else had no effect is retried or skipped). The run goes on
from there. It wants a --reason, which is kept in the history.`,
		Example: "  orchestrator run resolve order-1042 --step pay --applied --output-json '{\"receipt\":\"r-9\"}' --reason 'seen in the bank'\n  orchestrator run resolve order-1042 --step pay --not-applied --reason 'no such payment'",
		Args:    args("ID"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if o.Applied == failed {
				return usage("say one of --applied and --not-applied: whether the step's effect has happened")
			}
			if o.Reason == "" {
				return usage("--reason is missing: say how you know; it is kept in the run's history")
			}
			var err error
			if o.Output, err = c.parseInput("output-json", output); err != nil {
				return err
			}
			cl, err := c.connect()
			if err != nil {
				return err
			}
			run, err := cl.Resolve(cmd.Context(), given[0], o)
			if err != nil {
				return err
			}
			return c.ordered(cmd.Context(), cl, run, f)
		},
	}
	c.settleFlags(cmd, &o, &f)
	cmd.Flags().BoolVar(&o.Applied, "applied", false, "the step's effect has happened")
	cmd.Flags().BoolVar(&failed, "not-applied", false, "the step had no effect")
	cmd.Flags().StringVar(&output, "output-json", "", "with --applied, what the step would have returned: JSON, @FILE, or -")
	return cmd
}
