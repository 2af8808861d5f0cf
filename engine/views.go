package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
)

// failureText is a run's failure as its row tells it.
func failureText(r *run) string {
	code, message := r.state.Failure()
	if item := r.failedItem(); item != "" {
		code = item + ": " + code
	}
	if message = machine.Message(code, message); message == "" {
		return code
	}
	const limit = 200
	text := code + ": " + message
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "") + "…"
	}
	return text
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func runOf(row *store.Run) rest.Run {
	return rest.Run{
		ID: row.ID, Workflow: row.Workflow, Version: row.Version, Status: machine.Status(row.Status).String(),
		Waived: row.Waived, Key: row.Key, Tags: row.Tags, RetryOf: row.RetryOf,
		Parent: row.Parent, ParentStep: row.ParentStep, Created: row.Created,
		Ended: optional(row.Ended), FailedStep: row.FailedStep, Error: row.Error,
	}
}

// folded folds a run from what is durable, apart from the shard's own copy.
func (e *Engine) folded(ctx context.Context, row store.Run) (*run, error) {
	history, err := e.cfg.Store.History(ctx, row.Ref)
	if err != nil {
		return nil, storeError("read history", err)
	}
	return e.fold(store.Unfinished{Run: row, History: history})
}

// Runs returns a page of runs, newest first.
func (e *Engine) Runs(ctx context.Context, f store.Filter) (rest.RunPage, error) {
	page, err := e.cfg.Store.List(ctx, f)
	if err != nil {
		return rest.RunPage{}, storeError("list runs", err)
	}
	out := rest.RunPage{Next: page.Next, Runs: make([]rest.Run, len(page.Runs))}
	for i := range page.Runs {
		out.Runs[i] = runOf(&page.Runs[i])
	}
	return out, nil
}

// Run returns a run with everything known about it.
func (e *Engine) Run(ctx context.Context, id string) (rest.RunDetail, error) {
	if !e.owns(id) {
		there, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		d, err := ask[rest.RunDetail](there, e, order{Method: errandRun, ID: id}, nil)
		var own *Error
		if !errors.As(err, &own) || own.Kind != KindUnavailable {
			return d, err
		}
		// Only where its tasks are is not known here.
	}
	row, err := e.row(ctx, id)
	if err != nil {
		return rest.RunDetail{}, err
	}
	r, err := e.folded(ctx, row)
	if err != nil {
		return rest.RunDetail{}, err
	}
	d := rest.RunDetail{
		Run: runOf(&row), Shard: row.Shard, Input: r.state.Input(), Output: r.state.Output(),
		Deadline: optional(r.state.Deadline()), Wake: optional(r.state.Wake()), Steps: make([]rest.Step, r.wf.Len()),
	}
	if r.wf.Kind().HasParticipants() {
		d.Decision, d.Heuristic = r.state.Decision().String(), r.state.Heuristic()
	}
	for name, id := range r.state.Signals() {
		d.Signals = append(d.Signals, rest.KeptSignal{Name: name, ID: id})
	}
	d.Locks = locksOf(r)
	if w, err := e.waitsForLock(ctx, r); err != nil {
		return rest.RunDetail{}, err
	} else if w != "" {
		d.Waiting = append(d.Waiting, w)
	}
	if !row.Status.Final() && !e.dispatcher.isConnected() {
		d.Waiting = append(d.Waiting, "the broker is not connected: no task moves until it is back")
	}
	for i := range d.Steps {
		d.Steps[i] = e.stepOf(r, i)
		d.Steps[i].Items = e.itemsOf(r, i)
		if row.Status.Final() {
			continue
		}
		if d.Steps[i].Items != nil {
			d.Waiting = append(d.Waiting, itemsWait(&d.Steps[i])...)
			continue
		}
		if d.Steps[i].Waiting = e.waitsFor(r, i, &d.Steps[i]); d.Steps[i].Waiting != "" {
			d.Waiting = append(d.Waiting, d.Steps[i].Waiting)
		}
	}
	return d, nil
}

func (e *Engine) stepOf(r *run, i int) rest.Step {
	def, v := r.state.Def(i), r.state.StepView(i)
	s := rest.Step{
		Name: def.Name, Service: def.Service, Action: def.Action, Compensation: def.Compensation, Pivot: def.Pivot,
		Prepare: def.Prepare, Commit: def.Commit, Abort: def.Abort,
		State: v.State, Attempts: v.Attempts, CompensationAttempts: v.CompensationAttempts, Worker: v.Worker,
		Output: v.Output, Code: v.Code, Error: machine.Message(v.Code, v.Message), Stack: v.Stack,
		NextAttempt: optional(v.NextAttempt), Until: optional(v.Until), Started: optional(v.Started), Ended: optional(v.Ended),
	}
	if !def.Kind.HasTask() {
		s.Kind, s.Signal = def.Kind.String(), def.Signal
	}
	if def.Branch.Case != "" {
		s.Branch = &rest.Branch{Choice: r.state.Def(def.Branch.Choice).Name, Case: def.Branch.Case}
	}
	if def.Kind == definitions.StepChild {
		s.Kind, s.Workflow, s.Child = def.Kind.String(), def.Workflow, v.Child
	}
	if v.Items > 0 && len(s.Output) > definitions.MaxResultBytes {
		s.Output = nil // the items have it
	}
	for _, p := range def.Preds {
		s.After = append(s.After, r.state.Def(p).Name)
	}
	if v.Generation > 0 {
		s.Phase = v.Phase.String()
	}
	if v.Attempts > 0 {
		s.Input = r.state.TaskInput(i, machine.Action)
	}
	s.Progress = r.state.Progress(i, v.Phase)
	if v.Outstanding && !r.row.Status.Final() && !isChild(r, i, v.Phase) {
		where := e.dispatcher.whereabouts(outstanding(r, i, v))
		s.Worker = where.worker
		if where.progress != nil {
			s.Progress = where.progress
		}
		if s.State == "running" && !where.started {
			s.State = "waiting"
		}
	}
	return s
}

func outstanding(r *run, i int, v machine.StepView) protocol.TaskID {
	return protocol.TaskID{Ref: r.row.Ref, Step: int32(i), Phase: protocol.Phase(v.Phase), Generation: v.Generation, Attempt: v.Attempt}
}

// waitsFor says in words what step i waits for; empty if for nothing.
func (e *Engine) waitsFor(r *run, i int, s *rest.Step) string {
	def, v := r.state.Def(i), r.state.StepView(i)
	switch {
	case s.State == "stalled":
		return fmt.Sprintf("step %s is stalled%s: an operator must retry, skip or resolve it", s.Name, inBrackets(s.Code))
	case v.Outstanding && isChild(r, i, v.Phase):
		return e.childWaits(e.background, s.Name, v.Child, def.Workflow)
	case v.Outstanding:
		typ, _ := machine.TaskOf(def, v.Phase)
		where := e.dispatcher.whereabouts(outstanding(r, i, v))
		if n, waits := e.dispatcher.before(leaseName(r), outstanding(r, i, v)); waits {
			return fmt.Sprintf("%s of step %s waits for its turn at key %s: %d before it", v.Phase, s.Name, r.state.RoutingKey(), n)
		}
		switch {
		case where.started:
			return fmt.Sprintf("%s of step %s runs at worker %s", v.Phase, s.Name, where.worker)
		case where.worker != "":
			return fmt.Sprintf("%s of step %s has been sent to worker %s", v.Phase, s.Name, where.worker)
		case where.recovering:
			return fmt.Sprintf("%s of step %s may be at a worker that has not reported yet", v.Phase, s.Name)
		case e.dispatcher.serving(def, typ) == 0:
			return fmt.Sprintf("%s of step %s waits for a worker of service %s that serves %s: none is connected%s", v.Phase, s.Name, s.Service, typ, e.dispatcher.otherVersions(def.Service, typ)+e.strangers.ofService(def.Service))
		}
		return fmt.Sprintf("%s of step %s waits for a worker of service %s that has room", v.Phase, s.Name, s.Service)
	case s.State == "sleeping":
		return fmt.Sprintf("step %s sleeps until %s", s.Name, s.Until.Format(time.RFC3339))
	case s.Signal != "" && s.State == "waiting" && s.Until != nil:
		return fmt.Sprintf("step %s waits for signal %s until %s", s.Name, s.Signal, s.Until.Format(time.RFC3339))
	case s.Signal != "" && s.State == "waiting":
		return fmt.Sprintf("step %s waits for signal %s, for as long as it takes", s.Name, s.Signal)
	case s.NextAttempt != nil:
		return fmt.Sprintf("%s of step %s is tried again at %s", v.Phase, s.Name, s.NextAttempt.Format(time.RFC3339))
	}
	return ""
}

func inBrackets(code string) string {
	if code == "" {
		return ""
	}
	return " (" + code + ")"
}

// History returns a run's events, each with its explanation.
func (e *Engine) History(ctx context.Context, id string) ([]rest.Event, error) {
	row, err := e.row(ctx, id)
	if err != nil {
		return nil, err
	}
	w, err := e.workflows.version(row.Workflow, row.Version)
	if err != nil {
		return nil, err
	}
	records, err := e.cfg.Store.History(ctx, row.Ref)
	if err != nil {
		return nil, storeError("read history", err)
	}
	var events []machine.Event
	for _, rec := range records {
		more, err := machine.DecodeEvents(rec.Data)
		if err != nil {
			return nil, fmt.Errorf("history record %d: %w", rec.Seq, err)
		}
		events = append(events, more...)
	}
	state := machine.NewState(w.wf)
	for _, ev := range events {
		if err := state.Apply(ev); err != nil {
			break // what can be read is shown
		}
	}
	out := make([]rest.Event, len(events))
	for i, ev := range events {
		out[i] = eventOf(state, ev)
	}
	return out, nil
}

// eventOf is an event as users see it; the state is that at the end of the
// history.
func eventOf(state *machine.State, ev machine.Event) rest.Event {
	out := rest.Event{
		Seq: ev.Seq, At: ev.At, Kind: ev.Kind.String(), Generation: ev.Generation, Attempt: ev.Attempt,
		Worker: ev.Worker, Code: ev.Code, Message: ev.Message, Stack: ev.Stack, By: ev.By, Name: ev.Name, ID: ev.ID,
		Until: optional(ev.Until), Text: state.Explain(ev),
	}
	out.Parent = ev.Parent.RunID
	if ev.Kind == machine.AttemptScheduled {
		out.Child = ev.RunID
	}
	if ev.Kind != machine.Checkpointed && json.Valid(ev.Payload) {
		out.Payload = ev.Payload
	}
	if ev.Step >= 0 && ev.Step < state.NumSteps() {
		out.Step = state.Def(ev.Step).Name
	}
	if ev.Phase != 0 {
		out.Phase = ev.Phase.String()
	}
	return out
}

// whereabouts is where the task of an attempt is.
type whereabouts struct {
	worker     string
	started    bool
	recovering bool
	progress   []byte // that its handler reported last
}

func (d *dispatcher) whereabouts(id protocol.TaskID) whereabouts {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.limbo[id] != nil {
		return whereabouts{recovering: true}
	}
	for _, p := range d.peers {
		if s := p.out[id]; s != nil {
			return whereabouts{worker: p.id, started: s.running, progress: s.progress}
		}
	}
	return whereabouts{}
}

// serving is the number of workers that take tasks of a step and type now.
func (d *dispatcher) serving(step *definitions.Step, typ string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, p := range d.peers {
		if p.ready() && p.serves(classKey{service: step.Service, typ: typ}) {
			n++
		}
	}
	return n
}

// otherVersions says in words which other versions of a task type workers serve;
// empty if none.
func (d *dispatcher) otherVersions(service, typ string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	name, _ := definitions.SplitTaskType(typ)
	var served []string
	for _, p := range d.peers {
		for _, t := range p.types {
			if n, _ := definitions.SplitTaskType(t); p.service == service && p.ready() && n == name && !slices.Contains(served, t) {
				served = append(served, t)
			}
		}
	}
	if len(served) == 0 {
		return ""
	}
	slices.Sort(served)
	return ", only such that serve " + strings.Join(served, " and ")
}

// Workers lists the workers that this orchestrator knows.
func (e *Engine) Workers(context.Context) ([]rest.Worker, error) {
	return e.workers(), nil
}

func (e *Engine) workers() []rest.Worker {
	return append(e.dispatcher.workers(), e.strangers.workers()...)
}

func (d *dispatcher) workers() []rest.Worker {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.eng.clock.since()
	out := make([]rest.Worker, 0, len(d.peers))
	for _, p := range d.sortedPeers() {
		w := rest.Worker{
			ID: p.id, Name: p.name, Service: p.service, TaskTypes: p.types, State: p.state(now), Release: p.rel,
			Capacity: p.capacity, Credit: p.credit, Weight: p.weight, Outstanding: len(p.out),
			LastSeen: d.eng.clock.now().Add(p.seen - now), Protocol: p.speaks.String(),
		}
		for _, s := range p.out {
			if s.running {
				w.Running++
			} else {
				w.Queued++
			}
		}
		out = append(out, w)
	}
	return out
}

// DrainWorker asks a worker, by its id or its name, to finish what it runs and
// to leave.
func (e *Engine) DrainWorker(_ context.Context, id string) error {
	d := e.dispatcher
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.peers[id]
	for _, named := range d.sortedPeers() {
		if p == nil && named.name == id {
			p = named
		}
	}
	if p == nil {
		return &Error{Kind: KindNotFound, Code: "unknown_worker", Field: "id", Message: fmt.Sprintf("there is no worker %q", id), Hint: "see the list of workers"}
	}
	p.drain = true
	d.mark(p)
	d.wakeSender()
	return nil
}

// queues tells what waits, by service and type.
func (d *dispatcher) queues() []rest.ServiceQueue {
	d.mu.Lock()
	defer d.mu.Unlock()
	by := map[[2]string]*rest.ServiceQueue{}
	for k, c := range d.classes {
		q := by[[2]string{k.service, k.typ}]
		if q == nil {
			q = &rest.ServiceQueue{Service: k.service, Type: k.typ, Workers: len(c.members)}
			by[[2]string{k.service, k.typ}] = q
		}
		q.Waiting += c.depth()
	}
	out := make([]rest.ServiceQueue, 0, len(by))
	for _, q := range by {
		out = append(out, *q)
	}
	slices.SortFunc(out, func(a, b rest.ServiceQueue) int {
		return strings.Compare(a.Service+"\x00"+a.Type, b.Service+"\x00"+b.Type)
	})
	return out
}

// reachable tells whether the broker is connected, or has been away for less
// than the grace.
func (d *dispatcher) reachable(grace time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.connected || d.eng.clock.since()-d.cutAt < grace
}

func (d *dispatcher) isConnected() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.connected
}

// Stats returns the system at a glance.
func (e *Engine) Stats(ctx context.Context) (rest.Stats, error) {
	counts, err := e.cfg.Store.Counts(ctx)
	if err != nil {
		return rest.Stats{}, storeError("count runs", err)
	}
	s := e.statsHere()
	if e.cfg.Leases != nil {
		colleagues(ctx, e, errandStats, func(other rest.Stats) { addStats(&s, &other) })
	}
	s.Runs = map[string]map[string]int64{}
	for name, by := range counts {
		s.Runs[name] = map[string]int64{}
		for status, n := range by {
			s.Runs[name][machine.Status(status).String()] = n
		}
	}
	return s, nil
}

// statsHere is what this orchestrator adds to the whole.
func (e *Engine) statsHere() rest.Stats {
	s := rest.Stats{Waiting: e.dispatcher.queues(), Resident: int(e.resident.Load())}
	for _, w := range e.dispatcher.workers() {
		s.InFlight += w.Outstanding
	}
	return s
}

// addStats adds what another orchestrator has. Both know the same workers.
func addStats(s, other *rest.Stats) {
	s.Resident += other.Resident
	s.InFlight += other.InFlight
	for _, q := range other.Waiting {
		i := slices.IndexFunc(s.Waiting, func(w rest.ServiceQueue) bool { return w.Service == q.Service && w.Type == q.Type })
		if i < 0 {
			s.Waiting = append(s.Waiting, q)
			continue
		}
		s.Waiting[i].Waiting += q.Waiting
	}
}

// healthTimeout bounds the question whether the store is sound.
const healthTimeout = 2 * time.Second

// Health tells whether the engine and its parts work.
func (e *Engine) Health(ctx context.Context) rest.Health {
	// Whoever asks whether this process lives must not wait for a store that hangs.
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	h := rest.Health{Status: "ok", Checks: map[string]string{"engine": "ok", "store": "ok", "broker": "ok"}}
	fault := func(part string, err error) {
		if err != nil {
			h.Status, h.Checks[part] = "degraded", err.Error()
		}
	}
	fault("engine", e.serving())
	fault("store", e.cfg.Store.Check(ctx))
	if r := e.roster.rivalry(); r != "" {
		fault("engine", fmt.Errorf("orchestrator %s owns the same shards under namespace %s: give each deployment its own", r, e.cfg.Namespace))
	}
	if e.cfg.Leases == nil { // where shards are shared, it is not let in and disturbs nobody
		fault("engine", e.strangers.fault())
	}
	if !e.dispatcher.isConnected() {
		fault("broker", errors.New("not connected; work goes on when it is back"))
	}
	return h
}
