package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

func newWorkflow(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "workflow",
		Aliases: []string{"workflows", "wf"},
		Short:   "Register, list, show and activate workflows",
		Long: `A workflow is an immutable definition; its version is a hash of its content.
Registering a changed definition makes a new version and makes new runs use it;
runs that are under way keep the version they started with.`,
		Args: anyArgs,
		RunE: groupHelp,
	}
	cmd.AddCommand(c.workflowApply(), c.workflowList(), c.workflowShow(), c.workflowActivate())
	return cmd
}

func (c *cli) workflowApply() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apply FILE...",
		Short: "Register definitions from files",
		Long: `Checks each file as the orchestrator would, and registers it. A file holds one
definition as JSON, as Workflow.JSON of package definitions writes it; - is the
standard input. Applying a file again changes nothing. The first registration
of a version makes it the active one; see "workflow activate" for older ones.`,
		Example: "  orchestrator workflow apply order-flow.json\n  go run ./flows | orchestrator workflow apply -",
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return args("FILE")(cmd, given)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, files []string) error {
			var list []rest.Workflow
			for _, file := range files {
				w, err := c.apply(cmd, file)
				if err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
				list = append(list, w)
				if c.format != "json" {
					fmt.Fprintf(c.out, "%s %s %s\n", w.Name, w.Version, applied(w))
				}
			}
			if c.format == "json" {
				return c.printJSON(rest.WorkflowList{Workflows: list})
			}
			return nil
		},
	}
	c.outputFlag(cmd)
	return cmd
}

func applied(w rest.Workflow) string {
	switch {
	case w.Created && w.Active:
		return "registered; new runs use it"
	case w.Created:
		return "registered"
	case w.Active:
		return "unchanged; new runs use it"
	}
	return "exists already and is not the active version; see \"orchestrator workflow activate\""
}

func (c *cli) apply(cmd *cobra.Command, file string) (rest.Workflow, error) {
	cl, err := c.connect()
	if err != nil {
		return rest.Workflow{}, err
	}
	data, err := c.readFile(file)
	if err != nil {
		return rest.Workflow{}, err
	}
	wf, err := definitions.Parse(data)
	if err != nil {
		return rest.Workflow{}, err // every fault at once, with its place
	}
	return cl.Register(cmd.Context(), wf)
}

// readFile reads a file, or the standard input where its name is -.
func (c *cli) readFile(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(c.in)
	}
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.New("there is no such file")
	}
	return b, err
}

func (c *cli) workflowList() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List every version of every workflow",
		Long:    "Lists every registered version of every workflow, newest first. New runs use the active one.",
		Example: "  orchestrator workflow list\n  orchestrator workflow list -o json | jq -r '.workflows[].name'",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			list, err := cl.Workflows(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(rest.WorkflowList{Workflows: list}, func() error {
				if len(list) == 0 {
					return c.nothing(`No workflow is registered. Workers register theirs when they start; "orchestrator workflow apply FILE" does it by hand.`)
				}
				t := c.newTable("name", "version", "kind", "state", "registered")
				for _, w := range list {
					state := ""
					if w.Active {
						state = c.style.State("active", "active")
					}
					t.AppendRow(table.Row{render.Clean(w.Name), w.Version, w.Kind, state, c.ago(w.Registered)})
				}
				t.Render()
				return nil
			})
		},
	}
	c.outputFlag(cmd)
	return cmd
}

func (c *cli) workflowShow() *cobra.Command {
	var wanted string
	cmd := &cobra.Command{
		Use:     "show NAME",
		Short:   "Show a workflow and draw its steps",
		Long:    "Shows one version of a workflow, by default the active one, and draws its graph of steps, each with its task and what undoes it, and below that its condition, its input, its retries and its other settings. With -o json the definition comes with it, ready for \"workflow apply\" elsewhere.",
		Example: "  orchestrator workflow show order-flow\n  orchestrator workflow show order-flow -o json | jq .definition > order-flow.json",
		Args:    args("NAME"),
		RunE: func(cmd *cobra.Command, given []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			w, err := cl.Workflow(cmd.Context(), given[0], wanted)
			if err != nil {
				return err
			}
			return c.print(w, func() error { return c.showWorkflow(w) })
		},
	}
	cmd.Flags().StringVar(&wanted, "version", "", "a version other than the active one")
	c.outputFlag(cmd)
	return cmd
}

func (c *cli) workflowActivate() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "activate NAME VERSION",
		Short:   "Make new runs use a version",
		Long:    "Makes new runs of a workflow use one of its registered versions, such as the one before. Runs that are under way keep theirs.",
		Example: "  orchestrator workflow activate order-flow 5d41402abc4b2a76b9719d911017c592",
		Args:    args("NAME", "VERSION"),
		RunE: func(cmd *cobra.Command, given []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			w, err := cl.Activate(cmd.Context(), given[0], given[1])
			if err != nil {
				return err
			}
			return c.print(w, func() error {
				_, err := fmt.Fprintf(c.out, "%s %s is active; new runs use it\n", w.Name, w.Version)
				return err
			})
		},
	}
	c.outputFlag(cmd)
	return cmd
}

// parseInput reads a flag that holds JSON, or names a file with @, or is - for
// the standard input.
func (c *cli) parseInput(flag, value string) (json.RawMessage, error) {
	if value == "" {
		return nil, nil
	}
	data := []byte(value)
	var err error
	if name, isFile := strings.CutPrefix(value, "@"); isFile {
		data, err = c.readFile(name)
	} else if value == "-" {
		data, err = c.readFile("-")
	}
	if err != nil {
		return nil, usage("--%s %s: %w", flag, value, err)
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, usage("--%s: not JSON at byte %d: %w (strings need double quotes; put the whole in single quotes for the shell)", flag, syntax.Offset, err)
		}
		return nil, usage("--%s: not JSON: %w", flag, err)
	}
	return data, nil
}
