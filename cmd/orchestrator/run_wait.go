package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// waitFlags are the flags of commands that wait for a run.
type waitFlags struct {
	timeout   time.Duration
	pastStall bool
}

func (f *waitFlags) add(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "give up waiting after this time, with exit status 1; 0 waits for ever")
	cmd.Flags().BoolVar(&f.pastStall, "past-stall", false, "go on waiting while the run is stalled")
}

// waitOption is --wait with its flags, of commands that give an order to a run.
type waitOption struct {
	wait bool
	waitFlags
}

func (f *waitOption) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait until the run has ended or stalled; exit status 3 unless it succeeded or committed")
	f.waitFlags.add(cmd)
}

// check refuses the flags of a wait where there is none.
func (f *waitOption) check() error {
	switch {
	case f.wait:
		return nil
	case f.timeout != 0:
		return usage("--timeout bounds a wait: add --wait")
	case f.pastStall:
		return usage("--past-stall is about a wait: add --wait")
	}
	return nil
}

func (c *cli) runWait() *cobra.Command {
	var f waitFlags
	cmd := &cobra.Command{
		Use:   "wait ID",
		Short: "Wait until a run has ended",
		Long: `Waits until a run has ended or stalled, and shows on a terminal how it goes.

Exit status: 0 the run succeeded or committed; 3 it ended otherwise, or is
stalled, which no waiting changes (--past-stall waits all the same); 1 the time
given by --timeout passed, or the run could not be asked for.`,
		Example: "  orchestrator run wait order-1042\n  orchestrator run wait order-1042 --timeout 5m -o json",
		Args:    args("ID"),
		RunE: func(cmd *cobra.Command, given []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			return c.waitFor(cmd.Context(), cl, given[0], f)
		},
	}
	f.add(cmd)
	c.outputFlag(cmd)
	return cmd
}

// errWaited: the time given to a wait has passed.
var errWaited = errors.New("timeout")

// waitFor waits for a run, shows how it goes, and says how it ended.
func (c *cli) waitFor(ctx context.Context, cl *client.Client, id string, f waitFlags) error {
	limited := ctx
	if f.timeout > 0 {
		var stop context.CancelFunc
		limited, stop = context.WithTimeoutCause(ctx, f.timeout, errWaited)
		defer stop()
	}
	var (
		run rest.RunDetail
		err error
	)
	if c.outTerm && c.format != "json" {
		run, err = c.watch(limited, cl, id, f.pastStall)
	} else {
		run, err = await(limited, cl, id, f.pastStall)
	}
	if errors.Is(err, errWaited) {
		return fmt.Errorf("run %s has not ended within %s; it goes on, and \"orchestrator run wait %s\" waits again", id, f.timeout, shellQuote(id))
	}
	if err != nil {
		return err
	}
	err = c.print(run, func() error {
		fmt.Fprintln(c.out, c.outcome(run))
		if run.Status == "stalled" {
			fmt.Fprintf(c.err, "hint: it needs you: \"orchestrator run show %s\" says what can be done\n", shellQuote(id))
		}
		return nil
	})
	if err == nil && !client.Succeeded(run.Status) {
		return &runEndedError{run.Status}
	}
	return err
}

// await waits without showing anything.
func await(ctx context.Context, cl *client.Client, id string, pastStall bool) (rest.RunDetail, error) {
	if pastStall {
		return cl.Wait(ctx, id)
	}
	for {
		run, err := cl.Poll(ctx, id, 30*time.Second)
		if ctx.Err() != nil {
			return rest.RunDetail{}, context.Cause(ctx)
		}
		if err != nil {
			return rest.RunDetail{}, err
		}
		if run.Removed != nil {
			return rest.RunDetail{Run: run}, nil
		}
		if client.Ended(run.Status) || run.Status == "stalled" {
			d, err := cl.Get(ctx, id)
			if errors.Is(err, client.ErrRemoved) { // since then
				return rest.RunDetail{Run: run}, nil
			}
			return d, err
		}
	}
}

// watchPause is between two looks at a run whose progress is shown.
const watchPause = 250 * time.Millisecond

// watch shows on a terminal, in one line, how a run goes.
func (c *cli) watch(ctx context.Context, cl *client.Client, id string, pastStall bool) (rest.RunDetail, error) {
	frames := []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")
	line := statusLine{w: c.out}
	defer line.clear()
	for i := 0; ; i++ {
		run, err := cl.Get(ctx, id)
		if ctx.Err() != nil {
			return run, context.Cause(ctx)
		}
		if errors.Is(err, client.ErrRemoved) {
			return await(ctx, cl, id, pastStall)
		}
		if err != nil {
			return run, err
		}
		if client.Ended(run.Status) || run.Status == "stalled" && !pastStall {
			return run, nil
		}
		line.show(c.style.State(run.Status, string(frames[i%len(frames)])+" "+run.Status) + "  " + progress(run))
		select {
		case <-ctx.Done():
			return run, context.Cause(ctx)
		case <-time.After(watchPause):
		}
	}
}

// progress says how far a run has come.
func progress(r rest.RunDetail) string {
	done, now := 0, ""
	for _, s := range r.Steps {
		switch s.State {
		case "succeeded", "skipped", "resolved", "waived", "compensated":
			done++
		case "running", "retrying", "waiting", "compensating", "stalled":
			if now != "" {
				now += ", "
			}
			now += s.Name + " " + s.State
			if s.Items != nil {
				now += fmt.Sprintf(" (%d/%d items)", s.Items.States["succeeded"], s.Items.Total)
			} else if s.Attempts > 1 {
				now += fmt.Sprintf(" (attempt %d)", s.Attempts)
			}
		}
	}
	return render.Shorten(render.Clean(fmt.Sprintf("%d/%d steps  %s", done, len(r.Steps), now)), 100)
}
