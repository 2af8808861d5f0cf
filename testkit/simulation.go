package testkit

import (
	"bytes"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
)

// maxEvents bounds a run; one that goes on for longer will not end.
const maxEvents = 20_000

// attempt names one attempt.
type attempt struct {
	step       int
	phase      machine.Phase
	generation uint32
	number     uint32
}

// coming is an input on its way to the run.
type coming struct {
	at      time.Time
	in      machine.Input // nil: a moment has come
	trigger int
	of      attempt
	kept    bool // it comes even if the orchestrator crashes before
}

// simulation is one run under way.
type simulation struct {
	*Kit
	run      *Run
	state    *machine.State
	now      time.Time
	records  [][]byte // the history as it would be stored
	queue    []coming // by time; of the same time, in the order of their coming
	due      []machine.Input
	sent     map[attempt]bool // since the last crash
	copies   map[attempt]int  // which attempt of its task it is, from 1
	counts   map[target]int
	triggers []trigger
	fired    []int // matches of each trigger so far; -1: it is done
	orders   []order
	cmds     []machine.Command
	asking   string // the lock that was asked for since the last crash
	tokens   uint64 // given out
	commits  int
}

func newSimulation(k *Kit, id string, extra *trigger) *simulation {
	s := &simulation{
		Kit: k, now: start, state: machine.NewState(k.wf), sent: map[attempt]bool{}, copies: map[attempt]int{},
		counts: map[target]int{}, triggers: k.triggers, orders: slices.Clone(k.orders),
	}
	if extra != nil {
		s.triggers = append(slices.Clone(k.triggers), *extra)
	}
	s.fired = make([]int, len(s.triggers))
	s.run = &Run{ID: id, t: k.t, wf: k.wf}
	for i, t := range s.triggers {
		if t.at.timed {
			s.enqueue(coming{at: start.Add(t.at.elapsed), trigger: i})
		}
	}
	return s
}

// simulate runs until nothing more will happen.
func (s *simulation) simulate(in machine.Start) {
	s.t.Helper()
	s.take(in)
	for !s.state.Status().Final() {
		if len(s.run.Events) > maxEvents {
			s.finish()
			s.t.Fatalf("testkit: no end after %d events; does a handler fail whenever it is called?\n%s", maxEvents, s.run)
		}
		if !s.advance() {
			break
		}
	}
	s.finish()
	if !s.state.Status().Final() && s.state.Status() != machine.Stalled && !s.state.AwaitsSignal() {
		s.t.Fatalf("testkit: nothing more will happen, and the run has not ended\n%s", s.run)
	}
}

// advance lets the next thing happen; false if there is none.
func (s *simulation) advance() bool {
	s.t.Helper()
	if len(s.due) > 0 {
		in := s.due[0]
		s.due = s.due[1:]
		s.take(in)
		return true
	}
	if in := s.nextOrder(); in != nil {
		s.take(in)
		return true
	}
	wake := s.state.Wake()
	if len(s.queue) > 0 && (wake.IsZero() || !s.queue[0].at.After(wake)) {
		c := s.queue[0]
		s.queue = s.queue[1:]
		s.jump(c.at)
		if c.in == nil {
			s.fire(c.trigger)
		} else {
			s.take(c.in)
		}
		return true
	}
	if wake.IsZero() {
		return false
	}
	s.jump(wake)
	before := s.state.Seq()
	s.take(machine.Tick{})
	return s.state.Seq() != before || s.state.Wake() != wake
}

func (s *simulation) jump(to time.Time) {
	if to.After(s.now) {
		s.now = to
	}
}

// enqueue puts an input where its time is.
func (s *simulation) enqueue(c coming) {
	i := len(s.queue)
	for i > 0 && s.queue[i-1].at.After(c.at) {
		i--
	}
	s.queue = slices.Insert(s.queue, i, c)
}

// take has the core decide on an input, keeps the events and acts on them.
func (s *simulation) take(in machine.Input) {
	s.t.Helper()
	events, err := s.state.Step(in, s.now)
	if err != nil {
		s.finish()
		s.t.Fatalf("testkit: %T was refused: %v\n%s", in, err, s.run)
	}
	if len(events) == 0 {
		return
	}
	s.commits++
	s.records = append(s.records, machine.AppendEvents(nil, events))
	s.run.note(events)
	reached := s.reached(events)
	for _, i := range reached {
		if s.triggers[i].do == crashingIdle {
			s.fire(i)
		}
	}
	s.act()
	for _, i := range reached {
		if s.triggers[i].do != crashingIdle {
			s.fire(i)
		}
	}
}

// reached are the triggers whose moment these events are.
func (s *simulation) reached(events []machine.Event) (reached []int) {
	for i := range s.triggers {
		t := &s.triggers[i]
		if s.fired[i] < 0 || t.at.timed {
			continue
		}
		for j := range events {
			if !s.matches(t, &events[j]) {
				continue
			}
			if s.fired[i]++; s.fired[i] >= t.at.nth {
				reached = append(reached, i)
				s.fired[i] = -1
				break
			}
		}
	}
	return reached
}

func (s *simulation) matches(t *trigger, e *machine.Event) bool {
	m := &t.at
	return (m.seq == 0 || uint64(m.seq) == e.Seq) && (m.kind == 0 || m.kind == e.Kind) &&
		(m.commit == 0 || m.commit == s.commits) && (m.step == "" || t.target.covers(s.target(e.Step, e.Phase)))
}

func (s *simulation) fire(i int) {
	s.t.Helper()
	t := &s.triggers[i]
	s.fired[i] = -1
	if t.do == cancelling {
		s.due = append(s.due, machine.Cancel{By: operator, Reason: t.reason})
		return
	}
	if t.do == signalling {
		s.due = append(s.due, t.signal)
		return
	}
	s.crash(t.do == crashing)
}

// nextOrder is the operator's answer to a step that has stalled.
func (s *simulation) nextOrder() machine.Input {
	if s.state.Status() != machine.Stalled {
		return nil
	}
	stalled := s.state.StalledSteps(nil)
	for i, o := range s.orders {
		for _, step := range stalled {
			if o.target.step == s.target(step, 0).step && (o.target.item == everyItem || o.target.item == s.target(step, 0).item) {
				s.orders = slices.Delete(s.orders, i, i+1)
				return o.in(step)
			}
		}
	}
	return nil
}

// target is a step of the state, and a phase of it, in the words of the kit.
func (s *simulation) target(step int, phase machine.Phase) target {
	if step >= 0 && step < s.state.NumSteps() {
		if of, item, ok := s.state.ItemOf(step); ok {
			return target{of, item, phase}
		}
	}
	return target{step, everyItem, phase}
}

// act does what the state asks for, as far as it has not been done.
func (s *simulation) act() {
	s.t.Helper()
	s.askLock()
	s.cmds = s.state.Commands(s.cmds[:0])
	for _, c := range s.cmds {
		a := attempt{c.Step, c.Phase, c.Generation, c.Attempt}
		if c.Kind == machine.Dispatch {
			if !s.sent[a] {
				s.sent[a] = true
				s.send(a)
			}
			continue
		}
		if s.withdraw(a); c.Kind == machine.CancelTask && !s.sent[a] {
			s.sent[a] = true // before a crash, and nobody has it any more
			s.lose(a, noticed, machine.LostVanished)
		}
	}
}

// lose has the engine notice that an attempt will not answer.
func (s *simulation) lose(a attempt, after time.Duration, why machine.LossReason) {
	s.enqueue(coming{at: s.now.Add(after), of: a, kept: true, in: machine.Lost{
		Step: a.step, Phase: a.phase, Generation: a.generation, Attempt: a.number, Reason: why, Worker: workerName,
	}})
}

// withdraw takes back an attempt that no worker has got.
func (s *simulation) withdraw(a attempt) {
	for i, c := range s.queue {
		if _, ok := c.in.(machine.Expired); ok && c.of == a {
			s.queue = slices.Delete(s.queue, i, i+1)
			s.enqueue(coming{at: s.now, of: a, kept: true, in: machine.Withdrawn{
				Step: a.step, Phase: a.phase, Generation: a.generation, Attempt: a.number,
			}})
			return
		}
	}
}

// crash forgets all but what is stored, and what workers will say again.
func (s *simulation) crash(acted bool) {
	s.t.Helper()
	var events []machine.Event
	for _, record := range s.records {
		more, err := machine.DecodeEvents(record)
		if err != nil {
			s.t.Fatalf("testkit: the history cannot be read again: %v", err)
		}
		events = append(events, more...)
	}
	state, err := machine.Fold(s.wf, events)
	if err != nil {
		s.t.Fatalf("testkit: the history does not fold: %v", err)
	}
	if !bytes.Equal(state.AppendState(nil), s.state.AppendState(nil)) {
		s.t.Fatalf("testkit: the state after the crash is another\n%s", s.run)
	}
	s.state, s.asking = state, ""
	s.run.crashed(s.now.Sub(start), acted)
	var kept []coming
	s.sent = map[attempt]bool{}
	for _, c := range s.queue {
		if c.in == nil || c.kept {
			kept = append(kept, c)
			s.sent[c.of] = c.in != nil
		}
	}
	s.queue = kept
	if acted {
		s.act()
	}
}

// finish copies what is known of the run's end.
func (s *simulation) finish() {
	r := s.run
	r.state = s.state
	r.Status, r.Output, r.Waived = s.state.Status(), s.state.Output(), s.state.Waived()
	r.Heuristic = s.state.Heuristic()
	r.Code, r.Message = s.state.Failure()
	r.Took = s.now.Sub(start)
	if i := s.state.FailedStep(); i >= 0 {
		r.FailedStep = s.state.Def(i).Name
	}
}
