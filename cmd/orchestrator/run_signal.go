package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

func (c *cli) runSignal() *cobra.Command {
	var (
		s       rest.Signal
		payload string
		f       waitOption
	)
	cmd := &cobra.Command{
		Use:   "signal ID NAME",
		Short: "Give a run a signal that a step waits for",
		Long: `Gives a run the signal NAME, such as a human's approval. The step that waits for
it goes on, with the payload as its output; a signal that comes before its step
is kept. "run show" says what a run waits for.

--id tells a repetition: a signal with an id that the run has received is not
received again. Without it, each call is a signal of its own.`,
		Example: "  orchestrator run signal order-1042 approval --payload '{\"ok\":true}' --id ticket-17\n  orchestrator run signal order-1042 approval --payload @decision.json --wait",
		Args:    args("ID", "NAME"),
		RunE: func(cmd *cobra.Command, given []string) error {
			var err error
			if s.Payload, err = c.parseInput("payload", payload); err != nil {
				return err
			}
			cl, err := c.connect()
			if err != nil {
				return err
			}
			out, err := cl.Signal(cmd.Context(), given[0], given[1], s)
			if err != nil {
				return err
			}
			if f.wait {
				return c.waitFor(cmd.Context(), cl, given[0], f.waitFlags)
			}
			return c.print(out, func() error {
				text := "signal %s is received; %s is %s\n"
				if !out.Received {
					text = "signal %s had been received before; %s is %s\n"
				}
				_, err := fmt.Fprintf(c.out, text, render.Clean(given[1]), render.Clean(given[0]), c.style.State(out.Run.Status, statusText(out.Run)))
				return err
			})
		},
	}
	cmd.Flags().StringVar(&payload, "payload", "", "what the step that waits for it yields: JSON, @FILE, or - for the standard input")
	cmd.Flags().StringVar(&s.ID, "id", "", "the signal's own id, to tell a repetition")
	byFlag(cmd, &s.By)
	c.orderFlags(cmd, &f)
	return cmd
}
