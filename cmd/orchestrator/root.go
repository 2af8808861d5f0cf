package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// Exit statuses.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitRunEnded = 3 // the run that was waited for ended otherwise than asked for, or stalled
)

// usageError is an error in how the command was called.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usage(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// runEndedError ends a command with status 3. It has been said already.
type runEndedError struct{ status string }

func (e *runEndedError) Error() string { return "run " + e.status }

// errSaid ends a command with status 1 after it has said why.
var errSaid = errors.New("failed")

// cli is what all commands share.
type cli struct {
	in       io.Reader
	out, err io.Writer
	style    render.Style // of out
	errStyle render.Style
	outTerm  bool // out is a terminal
	now      func() time.Time

	apiURL string
	format string
	utc    bool
	client *client.Client
}

// run executes one command line and returns its exit status.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	c := &cli{in: in, out: out, err: errOut, now: time.Now}
	c.outTerm = isTerminal(out)
	c.style = render.Style{Color: colors(out)}
	c.errStyle = render.Style{Color: colors(errOut)}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot(c)
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	return c.exitStatus(root.ExecuteContext(ctx))
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colors tells whether to colour what goes to w: on a terminal that can, where
// NO_COLOR does not ask for plain text.
func colors(w io.Writer) bool {
	return isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

func newRoot(c *cli) *cobra.Command {
	root := &cobra.Command{
		Use:   "orchestrator",
		Short: "Run and operate Ringmaster, the transaction orchestration engine",
		Long: `orchestrator runs transactions over several services: sagas, whose steps are
carried out by workers and undone one by one when one of them fails for good, and
TCC and two-phase commits, whose participants all commit or all abort.

Begin with "orchestrator init DIR", which writes a first project, or with
"orchestrator dev": one process with an embedded database and broker.
"orchestrator serve" is the daemon for RabbitMQ. Every other command talks to one
of the two over HTTP, at --api or RINGMASTER_API.

Exit status: 0 done, 1 failed, 2 wrong usage; commands that wait for a run
exit with 3 when it ended other than succeeded or committed, or stalled.`,
		Example: `  orchestrator init shop
  orchestrator dev
  orchestrator workflow apply order-flow.json
  orchestrator run start order-flow --input '{"customer_id":"c-7","total":4200}' --wait
  orchestrator run list --status stalled`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args:              anyArgs,
		RunE:              groupHelp,
	}
	root.PersistentFlags().StringVar(&c.apiURL, "api", "", "URL of the orchestrator's API (env RINGMASTER_API, default "+client.DefaultURL+")")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%s\nSee %q.", flagFault(err), cmd.CommandPath()+" --help")
	})
	root.AddCommand(
		newDev(c), newServe(c), newWorkflow(c), newRun(c), newWorker(c), newRing(c), newLock(c), newShard(c), newExport(c), newImport(c),
		newTop(c), newStats(c), newDoctor(c), newBackup(c), newRestore(c), newInit(c), newVersion(c),
	)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

// flagFault says what is wrong with a flag, in other words than the Go
// library's where that names its functions.
func flagFault(err error) string {
	var wrong *pflag.InvalidValueError
	if !errors.As(err, &wrong) {
		return err.Error()
	}
	if _, rule := typed(wrong.GetFlag(), wrong.GetValue()); rule != nil {
		return fmt.Sprintf("--%s %q: %v", wrong.GetFlag().Name, wrong.GetValue(), rule)
	}
	return err.Error()
}

// anyArgs lets groupHelp answer for words that are no command.
func anyArgs(*cobra.Command, []string) error { return nil }

// groupHelp is what a command without an action of its own does.
func groupHelp(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	message := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		message += "\nDid you mean " + strings.Join(near, " or ") + "?"
	}
	return usage("%s\nSee %q.", message, cmd.CommandPath()+" --help")
}

// args checks the number of arguments and names those that are missing.
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		switch {
		case len(given) < len(names):
			return usage("%s: %s is missing\nUsage: %s", cmd.CommandPath(), names[len(given)], cmd.UseLine())
		case slices.Contains(given, ""):
			return usage("%s: %s is empty\nUsage: %s", cmd.CommandPath(), names[min(slices.Index(given, ""), len(names)-1)], cmd.UseLine())
		case len(given) > len(names):
			return usage("%s: unexpected argument %q\nUsage: %s", cmd.CommandPath(), given[len(names)], cmd.UseLine())
		}
		return nil
	}
}

// exitStatus says what went wrong, and what to do about it, and returns the
// status to exit with.
func (c *cli) exitStatus(err error) int {
	var (
		ended *runEndedError
		wrong *usageError
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &ended):
		return exitRunEnded
	case errors.Is(err, errSaid):
		return exitFailed
	}
	fmt.Fprintln(c.err, c.errStyle.Bad("error:"), render.CleanBlock(err.Error()))
	var p *rest.Problem
	if errors.As(err, &p) {
		for _, e := range p.Errors {
			if !strings.Contains(p.Detail, e.Message) {
				fmt.Fprintln(c.err, "  "+render.Clean(e.Location+": "+e.Message))
			}
		}
	}
	if hint := c.hint(err, p); hint != "" {
		fmt.Fprintln(c.err, c.errStyle.Faint("hint: "+hint))
	}
	if errors.As(err, &wrong) {
		return exitUsage
	}
	return exitFailed
}

// hint says what to do next.
func (c *cli) hint(err error, p *rest.Problem) string {
	switch {
	case errors.Is(err, context.Canceled):
		return ""
	case p == nil && errors.Is(err, client.ErrUnavailable):
		return fmt.Sprintf("is an orchestrator running at %s? Start one with \"orchestrator dev\", or say where it is with --api or RINGMASTER_API; \"orchestrator doctor\" looks for what is wrong", c.api())
	case p == nil:
		return ""
	}
	switch p.Code {
	case "unknown_run":
		return `"orchestrator run list" shows the runs there are`
	case "unknown_workflow":
		return `"orchestrator workflow list" shows those that are registered; register one with "orchestrator workflow apply FILE"`
	case "unknown_version":
		return `"orchestrator workflow list" shows the versions`
	case "unknown_worker":
		return `"orchestrator worker list" shows the workers and their ids`
	case "unknown_step", "not_stalled":
		return `"orchestrator run show ID" shows the steps and their states`
	}
	if errors.Is(err, client.ErrOverloaded) {
		return "the orchestrator is at a limit; try again later, or raise the limit (orchestrator serve --help)"
	}
	return ""
}

// api is the URL of the API, from the flag, the environment or the default.
func (c *cli) api() string {
	if c.apiURL != "" {
		return c.apiURL
	}
	if u := os.Getenv("RINGMASTER_API"); u != "" {
		return u
	}
	return client.DefaultURL
}

// connect returns the client of the API. People at a terminal should not have
// to wait half a minute to learn that nobody listens.
func (c *cli) connect() (*client.Client, error) {
	if c.client != nil {
		return c.client, nil
	}
	cl, err := client.New(client.Config{URL: c.api(), RetryFor: 2 * time.Second, UserAgent: "orchestrator/" + buildInfo().Version})
	if err != nil {
		return nil, usage("--api %q: expected http://host:port", c.api())
	}
	c.client = cl
	return cl, nil
}
