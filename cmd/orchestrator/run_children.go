package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

const (
	// shownChildren bounds the children that are drawn of one run, and
	// shownFamily those of them and theirs together.
	shownChildren = 20
	shownFamily   = 100
)

// children draws the child runs of a run, and theirs.
func (c *cli) children(ctx context.Context, cl *client.Client, run rest.RunDetail) error {
	for _, s := range run.Steps {
		if s.Kind == "child" && (s.Attempts > 0 || s.Items != nil) {
			fmt.Fprintln(c.out, "\n"+c.style.Faint("children"))
			left := shownFamily
			return c.childrenOf(ctx, cl, run.ID, 1, &left)
		}
	}
	return nil
}

func (c *cli) childrenOf(ctx context.Context, cl *client.Client, id string, level int, left *int) error {
	page, err := cl.List(ctx, client.Filter{Parent: id, Limit: shownChildren})
	if err != nil {
		return err
	}
	indent := strings.Repeat("  ", level)
	for i := len(page.Runs) - 1; i >= 0; i-- { // the oldest first
		r := page.Runs[i]
		line := fmt.Sprintf("%s%s  %s %s  %s", indent, render.Clean(r.ParentStep), c.style.Bold(render.Clean(r.ID)),
			render.Clean(r.Workflow), c.style.State(r.Status, statusText(r)))
		if r.Error != "" {
			line += "  " + render.Shorten(render.Clean(r.Error), 80)
		}
		fmt.Fprintln(c.out, line)
		if *left--; *left <= 0 {
			return nil
		}
		if err := c.childrenOf(ctx, cl, r.ID, level+1, left); err != nil {
			return err
		}
	}
	if page.Next != "" {
		fmt.Fprintf(c.out, "%sand more: orchestrator run list --parent %s\n", indent, shellQuote(id))
	}
	return nil
}

// childOf says of which run, and which step of it, a run is a child.
func childOf(r rest.Run) string {
	if r.Parent == "" {
		return ""
	}
	return render.Clean(r.Parent) + ", step " + render.Clean(r.ParentStep)
}
