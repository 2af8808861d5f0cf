package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

func (c *cli) runItems() *cobra.Command {
	var f client.ItemFilter
	cmd := &cobra.Command{
		Use:   "items ID STEP",
		Short: "List the items of a step that fans out",
		Long: `Lists the items of a step with for_each, in the order of its list, each with its
state, its attempts and its error. An item is retried, skipped or resolved by its
name, such as 'ship[3]'.`,
		Example: "  orchestrator run items order-1042 ship\n  orchestrator run items order-1042 ship --state failed\n  orchestrator run items order-1042 ship -o json | jq '.items[].output'",
		Args:    args("ID", "STEP"),
		RunE: func(cmd *cobra.Command, given []string) error {
			cl, err := c.connect()
			if err != nil {
				return err
			}
			page, err := cl.Items(cmd.Context(), given[0], given[1], f)
			if err != nil {
				return err
			}
			return c.print(page, func() error { return c.showItems(page) })
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.State, "state", "", "items in this state only, such as failed")
	fl.IntVar(&f.Limit, "limit", 0, "items in one page, at most 1000; by default 100")
	fl.StringVar(&f.Cursor, "cursor", "", "go on where the page before ended")
	c.outputFlag(cmd)
	return cmd
}

func (c *cli) showItems(page rest.ItemPage) error {
	if len(page.Items) == 0 {
		return c.nothing("There are no such items.")
	}
	for _, line := range render.Graph(c.itemNodes(page.Items)) {
		fmt.Fprintln(c.out, line)
	}
	if page.Next != "" {
		fmt.Fprintln(c.out, c.style.Faint("there are more: go on with --cursor "+page.Next))
	}
	return nil
}

// itemNodes draws items one below the other.
func (c *cli) itemNodes(items []rest.Step) []render.Node {
	nodes := make([]render.Node, len(items))
	for i, s := range items {
		nodes[i] = render.Node{
			Symbol: render.Symbol(s.State),
			Paint:  func(text string) string { return c.style.State(s.State, text) },
			Cells:  []string{render.Clean(s.Name), s.State, attemptsText(s), c.tookText(s), render.Clean(s.Worker)},
			Notes:  c.stepNotes(s, false),
		}
		if i > 0 {
			nodes[i].After = []int{i - 1}
		}
	}
	return nodes
}

// itemsText counts the items of a step by state, the most frequent first.
func itemsText(items *rest.Items) string {
	states := slices.SortedFunc(maps.Keys(items.States), func(a, b string) int {
		return cmp.Or(items.States[b]-items.States[a], strings.Compare(a, b))
	})
	text := render.Count(items.Total, "item", "items")
	for i, state := range states {
		text += [...]string{": ", ", "}[min(i, 1)] + fmt.Sprintf("%d %s", items.States[state], state)
	}
	return text
}

// itemNotes are the lines about the items of a step that people look for first.
func (c *cli) itemNotes(items *rest.Items) (notes []string) {
	const most = 10
	more := items.More
	for i, s := range items.Shown {
		if i >= most {
			more += len(items.Shown) - most
			break
		}
		line := c.style.State(s.State, render.Symbol(s.State)+" "+render.Clean(s.Name)+" "+s.State)
		if note := c.stepNotes(s, false); len(note) > 0 {
			line += "  " + strings.Join(note, " ")
		}
		notes = append(notes, line)
	}
	if more > 0 {
		notes = append(notes, c.style.Faint(fmt.Sprintf("and %d more: see run items", more)))
	}
	return notes
}

// unfolded are the run's steps; in the place of one that has fanned out, those of
// its items that are shown.
func unfolded(r *rest.RunDetail) []*rest.Step {
	var steps []*rest.Step
	for i := range r.Steps {
		s := &r.Steps[i]
		if s.Items == nil || len(s.Items.Shown) == 0 {
			steps = append(steps, s)
			continue
		}
		for k := range s.Items.Shown {
			steps = append(steps, &s.Items.Shown[k])
		}
	}
	return steps
}
