package engine

import (
	"fmt"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/store"
)

// run is a run in memory: its row, its folded state, and what the shard has
// already done about the state's commands.
type run struct {
	row    store.Run
	state  *machine.State
	wf     *definitions.Workflow
	series *workflowSeries

	dispatched []protocol.TaskID // attempts whose Dispatch has been acted upon
	cancelled  []protocol.TaskID // attempts whose CancelTask or Withdraw has been acted upon
	overtaken  []protocol.TaskID // of an ended run: attempts that were not answered
	asking     string            // the lock that it has asked for
	armed      int64             // Unix ms of its Tick alarm; 0 none
	records    int               // of history since the start or the last checkpoint
	part       uint64            // the shard's last submission that touches it

	newer, older *run // the cache's order of use
}

// cache keeps the runs of a shard that are in memory, least recently used
// last. It is used by one goroutine.
type cache struct {
	byRef          map[int64]*run
	newest, oldest *run
}

func newCache() *cache { return &cache{byRef: make(map[int64]*run)} }

// get returns a resident run, or nil, and marks it as used.
func (c *cache) get(ref int64) *run {
	r := c.byRef[ref]
	if r != nil && c.newest != r {
		c.unlink(r)
		c.link(r)
	}
	return r
}

func (c *cache) add(r *run) {
	c.byRef[r.row.Ref] = r
	c.link(r)
}

func (c *cache) remove(r *run) {
	delete(c.byRef, r.row.Ref)
	c.unlink(r)
}

func (c *cache) link(r *run) {
	r.older, r.newer = c.newest, nil
	if c.newest != nil {
		c.newest.newer = r
	}
	c.newest = r
	if c.oldest == nil {
		c.oldest = r
	}
}

func (c *cache) unlink(r *run) {
	if r.newer != nil {
		r.newer.older = r.older
	} else {
		c.newest = r.older
	}
	if r.older != nil {
		r.older.newer = r.newer
	} else {
		c.oldest = r.newer
	}
	r.newer, r.older = nil, nil
}

// shrink drops the least recently used runs beyond limit, as far as all that
// was decided on them is durable.
func (c *cache) shrink(limit int, durable uint64) {
	for len(c.byRef) > limit && c.oldest.part <= durable {
		c.remove(c.oldest)
	}
}

// newState is the state of a run of this workflow before its start.
func (e *Engine) newState(wf *definitions.Workflow) *machine.State {
	s := machine.NewState(wf)
	s.LimitItems(e.cfg.Limits.MaxItems)
	return s
}

// fold makes a resident run of what the store holds.
func (e *Engine) fold(u store.Unfinished) (*run, error) {
	w, err := e.workflows.version(u.Run.Workflow, u.Run.Version)
	if err != nil {
		return nil, fmt.Errorf("run %q: %w", u.Run.ID, err)
	}
	r := &run{row: u.Run, wf: w.wf, series: w.series, state: e.newState(w.wf), records: len(u.History)}
	for _, rec := range u.History {
		events, err := machine.DecodeEvents(rec.Data)
		if err != nil {
			return nil, fmt.Errorf("run %q: history record %d: %w", u.Run.ID, rec.Seq, err)
		}
		for _, ev := range events {
			if err := r.state.Apply(ev); err != nil {
				return nil, fmt.Errorf("run %q: history record %d: %w", u.Run.ID, rec.Seq, err)
			}
		}
	}
	if l, ok := r.state.NextLock(); ok {
		r.asking = l.Name
	}
	for _, c := range r.state.Commands(nil) {
		id := taskID(r.row.Ref, c)
		if c.Kind == machine.Dispatch {
			r.dispatched = append(r.dispatched, id)
		} else {
			r.cancelled = append(r.cancelled, id)
		}
	}
	return r, nil
}

func taskID(ref int64, c machine.Command) protocol.TaskID {
	return protocol.TaskID{
		Ref: ref, Step: int32(c.Step), Phase: protocol.Phase(c.Phase),
		Generation: c.Generation, Attempt: c.Attempt,
	}
}

// unreadable reports a run that cannot be folded: its history was written by a
// newer version, or is damaged. It is left alone, so that all others go on.
func (e *Engine) unreadable(id string, err error) {
	e.metrics.unreadable.Inc()
	e.log.Error("run cannot be read and is left alone", "run", id, "error", err)
}
