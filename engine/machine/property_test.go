package machine

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

var (
	seedFlag = flag.Uint64("machine.seed", 0, "replay the random run of this seed alone")
	runsFlag = flag.Int("machine.runs", 3000, "number of random runs")
)

// TestRandomRuns throws answers, losses, duplicates, cancels, orders, crashes
// and nonsense at random sagas, and checks the invariants by name. A failure
// prints a seed; -machine.seed=N replays it.
func TestRandomRuns(t *testing.T) {
	if *seedFlag != 0 {
		if err := randomRun(*seedFlag, t.Logf); err != nil {
			t.Fatal(err)
		}
		return
	}
	base := uint64(time.Now().UnixNano()) >> 10
	quiet := func(string, ...any) {}
	ends := map[Status]int{}
	for i := range *runsFlag {
		seed := base + uint64(i)
		err := randomRun(seed, func(format string, args ...any) {
			if format == "end %v" {
				ends[args[0].(Status)]++
			}
			quiet(format, args...)
		})
		if err != nil {
			t.Fatalf("seed %d: %v\nreplay with -run RandomRuns -machine.seed=%d -v", seed, err, seed)
		}
	}
	t.Logf("seeds from %d; ends: %v", base, ends)
	for _, s := range []Status{Succeeded, Compensated, Stalled} {
		if *runsFlag >= 1000 && ends[s] < *runsFlag/200 {
			t.Errorf("only %d of %d runs ended %v: the test does not reach what it should", ends[s], *runsFlag, s)
		}
	}
}

// simulation is one random run.
type simulation struct {
	rng       *rand.Rand
	wf        *definitions.Workflow
	state     *State
	world     *world
	observer  *observer
	now       time.Time
	records   [][]byte // the history as it happened
	compact   [][]byte // the same with checkpoints, made at random
	lying     bool     // inputs need not agree with any truth
	operators bool
	sent      int // signals
	rates     rates
	logf      func(string, ...any)
}

// rates of what goes wrong, in percent; each run draws its own.
type rates struct {
	lost, died  int // of answers; of losses
	haunt       int // of disturbances, as are the rest
	repeat      int
	tick        int
	cancel      int
	settle      int
	recover     int
	checkpoint  int
	nonsense    int
	signal      int
	expired     int // of answers
	withdrawals int // of answers to a request to give up
}

func randomRates(rng *rand.Rand) rates {
	return rates{
		lost: rng.IntN(60), died: rng.IntN(100), haunt: rng.IntN(20), repeat: rng.IntN(10), tick: 5 + rng.IntN(20),
		cancel: rng.IntN(4), settle: rng.IntN(10), recover: rng.IntN(8), checkpoint: rng.IntN(4),
		nonsense: rng.IntN(10), signal: 2 + rng.IntN(10), expired: rng.IntN(10), withdrawals: rng.IntN(50),
	}
}

func randomRun(seed uint64, logf func(string, ...any)) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	wf := randomWorkflow(rng)
	m := &simulation{
		rng: rng, wf: wf, state: NewState(wf), world: newWorld(rng, wf), observer: newObserver(wf),
		now:   time.UnixMilli(1_700_000_000_000).UTC(),
		lying: rng.IntN(3) == 0, operators: rng.IntN(3) > 0, rates: randomRates(rng), logf: logf,
	}
	m.world.def = func(i int) *definitions.Step { return m.state.def(i) }
	logf("%s", wf.JSON())
	if err := m.start(seed); err != nil {
		return err
	}
	for range 10 + rng.IntN(60) {
		if err := m.disturb(); err != nil {
			return err
		}
	}
	if err := m.converge(); err != nil {
		return err
	}
	logf("end %v", m.state.Status())
	return m.settleGhosts()
}

func (m *simulation) start(seed uint64) error {
	in := Start{RunID: "run-" + strconv.FormatUint(seed, 10), Input: []byte(`{"n":1}`)}
	if m.rng.IntN(10) == 0 {
		in.Deadline = m.now.Add(time.Duration(m.rng.IntN(5)-1) * time.Second)
	}
	_, err := m.step(in)
	return err
}

// step feeds one input and checks all that must hold.
func (m *simulation) step(in Input) ([]Event, error) {
	before := m.state.AppendState(nil)
	events, err := m.state.Step(in, m.now)
	m.logf("%s %T%+v -> %d events, %v", m.now.Format("05.000"), in, in, len(events), err)
	after := m.state.AppendState(nil)
	if len(events) == 0 && !bytes.Equal(before, after) {
		return nil, fmt.Errorf("S12: %T without events changed the state", in)
	}
	if err != nil {
		if len(events) > 0 {
			return nil, fmt.Errorf("%T was rejected with events", in)
		}
		for _, known := range []error{ErrRepeated, ErrTooMany, ErrEnded, ErrNotStalled, ErrNoStep, ErrNotAllowed, ErrRejected} {
			if errors.Is(err, known) {
				return nil, nil
			}
		}
		return nil, fmt.Errorf("unknown error: %w", err)
	}
	for _, e := range events {
		m.logf("    %d %s", e.Seq, m.state.Explain(e))
		if err := m.observer.see(e); err != nil {
			return nil, err
		}
	}
	m.world.know(m.state.NumSteps())
	if len(events) > 0 {
		data := AppendEvents(nil, events)
		m.records = append(m.records, data)
		m.compact = append(m.compact, data)
		if err := m.observer.moved(m.state.Status()); err != nil {
			return nil, err
		}
	}
	return events, m.asked()
}

// asked checks that the commands, and the steps as users see them, fit what
// the events say.
func (m *simulation) asked() error {
	for _, c := range m.state.Commands(nil) {
		t := &m.observer.steps[c.Step].task[c.Phase]
		if !t.outstanding || t.generation != c.Generation || t.attempt != c.Attempt {
			return fmt.Errorf("S11: a command for an attempt that is not outstanding: %+v", c)
		}
	}
	for i := range m.state.NumSteps() {
		if got, want := m.state.StepView(i).State, m.observer.word(i); !slices.Contains(want, got) {
			return fmt.Errorf("step %d is %s, by the events it is one of %q", i, got, want)
		}
	}
	return nil
}

// recover checks S12 and goes on with the rebuilt state.
func (m *simulation) recover() error {
	live := m.state.AppendState(nil)
	for _, history := range [][][]byte{m.records, m.compact} {
		s := NewState(m.wf)
		for _, data := range history {
			events, err := DecodeEvents(data)
			if err != nil {
				return fmt.Errorf("S12: %w", err)
			}
			if again := AppendEvents(nil, events); !bytes.Equal(again, data) {
				return fmt.Errorf("S12: a record does not encode to itself")
			}
			for _, e := range events {
				if err := s.Apply(e); err != nil {
					return fmt.Errorf("S12: %w", err)
				}
			}
		}
		if !bytes.Equal(live, s.AppendState(nil)) {
			return fmt.Errorf("S12: the fold of the history is not the state")
		}
		if !slices.Equal(s.Commands(nil), m.state.Commands(nil)) {
			return fmt.Errorf("S11: after recovery other commands")
		}
		if !slices.Equal(m.state.Locks(), s.Locks()) {
			return fmt.Errorf("S12: after recovery other locks")
		}
		if m.state.Wake() != s.Wake() {
			return fmt.Errorf("S11: after recovery another wake-up")
		}
		for i := range m.state.NumSteps() {
			if a, b := s.StepView(i), m.state.StepView(i); fmt.Sprint(a) != fmt.Sprint(b) {
				return fmt.Errorf("S12: after recovery step %d looks different: %v, %v", i, a, b)
			}
		}
		if m.rng.IntN(2) == 0 {
			m.state = s
		}
	}
	return nil
}

// checkpoint folds the history, as the shell does with a long one.
func (m *simulation) checkpoint() error {
	if m.state.Status().Final() {
		return nil
	}
	cp := m.state.Checkpoint(m.now)
	if err := m.state.Apply(cp); err != nil {
		return fmt.Errorf("S12: %w", err)
	}
	data := AppendEvents(nil, []Event{cp})
	m.records = append(m.records, data)
	m.compact = append(m.compact[:1:1], data)
	return m.recover()
}

// disturb does one random thing to the run.
func (m *simulation) disturb() error {
	n := m.rng.IntN(100)
	happens := func(rate int) bool {
		n -= rate
		return n < 0
	}
	r := m.rates
	switch {
	case happens(r.tick):
		return m.tick()
	case happens(r.haunt):
		return m.haunt()
	case happens(r.repeat):
		return m.repeat()
	case happens(r.cancel):
		_, err := m.step(Cancel{By: "ann"})
		return err
	case happens(r.settle):
		return m.settle()
	case happens(r.recover):
		return m.recover()
	case happens(r.checkpoint):
		return m.checkpoint()
	case happens(r.nonsense):
		return m.nonsense()
	case happens(r.signal):
		return m.signal("g" + strconv.Itoa(m.rng.IntN(3)))
	}
	return m.answer()
}

// answer ends one of the attempts that the state asks for, in some way.
func (m *simulation) answer() error {
	cmds := m.state.Commands(nil)
	if len(cmds) == 0 {
		return m.tick()
	}
	c := cmds[m.rng.IntN(len(cmds))]
	a := attempt{c.Step, c.Phase, c.Generation, c.Attempt}
	var in Input
	switch happens := func(rate int) bool { return m.rng.IntN(100) < rate }; {
	case m.world.child(a): // never lost: it is asked for until it answers
		in = m.world.runs(a, m.rng.IntN(100) < m.rates.withdrawals && c.Kind != Dispatch)
	case happens(m.rates.lost):
		reason := LostTimeout + LossReason(m.rng.IntN(2))
		if happens(m.rates.died) {
			reason = LostWorkerDied
		}
		in = Lost{a.step, a.phase, a.generation, a.number, reason, "w1", nil}
		m.world.ghosts = append(m.world.ghosts, a)
	case happens(m.rates.expired):
		sent := m.rng.IntN(2) == 0
		in = Expired{a.step, a.phase, a.generation, a.number, sent}
		if sent {
			m.world.ghosts = append(m.world.ghosts, a)
		}
	case c.Kind != Dispatch && happens(m.rates.withdrawals), m.lying && happens(5):
		in = Withdrawn{a.step, a.phase, a.generation, a.number}
	default:
		in = m.world.perform(a, false)
	}
	_, err := m.step(in)
	return err
}

func (m *simulation) tick() error {
	if in, ok := lockAnswer(m.rng, m.state, false); ok && m.rng.IntN(3) > 0 {
		_, err := m.step(in)
		return err
	}
	if wake := m.state.Wake(); !wake.IsZero() && m.rng.IntN(3) > 0 {
		if wake.After(m.now) {
			m.now = wake
		}
	} else {
		m.now = m.now.Add(time.Duration(m.rng.IntN(1500)) * time.Millisecond)
	}
	_, err := m.step(Tick{})
	return err
}

// haunt lets an attempt that was declared lost answer after all.
func (m *simulation) haunt() error {
	g := m.world.ghosts
	if len(g) == 0 {
		return nil
	}
	i := m.rng.IntN(len(g))
	a := g[i]
	m.world.ghosts = slices.Delete(g, i, i+1)
	return m.stale(m.world.perform(a, false))
}

// repeat delivers an answer again, out of order.
func (m *simulation) repeat() error {
	if len(m.world.said) == 0 {
		return nil
	}
	r := m.world.said[m.rng.IntN(len(m.world.said))]
	if r.Outcome == OutcomeSucceeded && m.rng.IntN(2) == 0 {
		if _, err := m.step(r); err != nil {
			return err
		}
	}
	return m.stale(r)
}

// stale feeds an answer; if its attempt is not outstanding, S9 holds.
func (m *simulation) stale(r Result) error {
	old := true
	for _, c := range m.state.Commands(nil) {
		if c.Step == r.Step && c.Phase == r.Phase && c.Generation == r.Generation && c.Attempt == r.Attempt {
			old = false
		}
	}
	was := m.observer.steps[r.Step]
	events, err := m.step(r)
	if err != nil || !old {
		return err
	}
	if r.Outcome == OutcomeSucceeded {
		made := was.task[r.Phase].generation == r.Generation && r.Attempt > 0 && r.Attempt <= was.task[r.Phase].attempt
		counts := r.Phase == Action && (was.outcome == "failed" || was.outcome == "unknown" || was.outcome == "active") ||
			r.Phase == Compensate && was.undone == "active"
		if made && counts && m.observer.ended == 0 && len(events) == 0 {
			return fmt.Errorf("S9: the stale success %+v does not count", r)
		}
		return nil
	}
	// It may make known that a pivot has failed, and so let a cancel through.
	if len(events) > 0 && !(events[0].Kind == AttemptFailed && events[0].Late) {
		return fmt.Errorf("S9: the stale answer %+v made %d events", r, len(events))
	}
	return nil
}

// settle has an operator deal with a stalled step, by what is true.
func (m *simulation) settle() error {
	stalled := m.state.StalledSteps(nil)
	if len(stalled) == 0 || !m.operators {
		_, err := m.step(Retry{Step: m.rng.IntN(m.state.NumSteps()+2) - 1})
		return err
	}
	i := stalled[m.rng.IntN(len(stalled))]
	action := m.observer.steps[i].stalled == Action
	var in Input
	switch m.rng.IntN(4) {
	case 0:
		in = Retry{Step: i, By: "ann"}
	case 1:
		in = Retry{Step: i, By: "ann", Input: []byte(`{"fixed":true}`)}
		if m.state.Def(i).ForEach && m.rng.IntN(2) == 0 {
			in = Retry{Step: i, By: "ann", Input: []byte(`[1,{"a":"],"}]`)}
		}
	case 2:
		in = Skip{Step: i, By: "ann", Reason: "not needed"}
	default:
		r := Resolve{Step: i, By: "ann", Reason: "looked"}
		if len(m.state.Def(i).Cases) > 0 {
			r.Output = []byte([]string{`"a"`, `"z"`}[m.rng.IntN(2)])
		}
		if action && m.state.Def(i).Kind.HasTask() {
			r.Applied = m.world.effects(i) > 0
		} else {
			r.Applied = true
		}
		in = r
	}
	events, err := m.step(in)
	if len(events) > 0 && events[0].Kind != RetryOrdered {
		if action && events[0].Kind == StepResolved {
			m.world.blocked[i] = true // "and will not"
		} else {
			m.world.excused[i] = true
		}
	}
	return err
}

// nonsense is an input that no truth stands behind.
func (m *simulation) nonsense() error {
	a := attempt{
		m.rng.IntN(m.state.NumSteps()+2) - 1, Phase(m.rng.IntN(4)), uint32(m.rng.IntN(3)), uint32(m.rng.IntN(5)),
	}
	if !m.lying {
		a.number += 100 // an attempt that was never made
	}
	var in Input
	switch m.rng.IntN(6) {
	case 0:
		r := Result{Step: a.step, Phase: a.phase, Generation: a.generation, Attempt: a.number,
			Outcome: Outcome(m.rng.IntN(5)), Retryable: m.rng.IntN(2) == 0}
		if a.step >= 0 && a.step < m.state.NumSteps() && (a.phase == Action || a.phase == Compensate) {
			return m.stale(r)
		}
		in = r
	case 1:
		in = Lost{a.step, a.phase, a.generation, a.number, LossReason(m.rng.IntN(4)), "", nil}
	case 2:
		in = Expired{a.step, a.phase, a.generation, a.number, m.rng.IntN(2) == 0}
	case 3:
		in = Withdrawn{a.step, a.phase, a.generation, a.number}
	case 4:
		in = Start{RunID: "again"}
	default:
		in = Skip{Step: a.step}
	}
	_, err := m.step(in)
	return err
}

// converge stops the faults: workers are faithful, the clock moves. Every run
// then ends or stalls, soon (S10).
func (m *simulation) converge() error {
	for n := 0; n < 40*m.state.NumSteps(); n++ {
		if m.state.Status().Final() {
			break
		}
		if in, ok := lockAnswer(m.rng, m.state, true); ok {
			if _, err := m.step(in); err != nil {
				return err
			}
			continue
		}
		if cmds := m.state.Commands(nil); len(cmds) > 0 {
			c := cmds[m.rng.IntN(len(cmds))]
			if _, err := m.step(m.world.perform(attempt{c.Step, c.Phase, c.Generation, c.Attempt}, true)); err != nil {
				return err
			}
			continue
		}
		wake := m.state.Wake()
		if i := slices.IndexFunc(m.wf.Signals(), m.awaited); i >= 0 {
			if err := m.signal(m.wf.Signals()[i]); err != nil {
				return err
			}
			continue
		}
		if wake.IsZero() {
			break
		}
		if wake.After(m.now) {
			m.now = wake
		}
		if _, err := m.step(Tick{}); err != nil {
			return err
		}
	}
	if st := m.state.Status(); !st.Final() && st != Stalled {
		return fmt.Errorf("S10: the run is still %v", st)
	}
	return m.recover()
}

// settleGhosts lets what was lost run at last, and compares the truth.
func (m *simulation) settleGhosts() error {
	for len(m.world.ghosts) > 0 {
		if err := m.haunt(); err != nil {
			return err
		}
	}
	if err := m.converge(); err != nil {
		return err
	}
	if m.lying {
		return nil
	}
	return m.world.audit(m.state)
}
