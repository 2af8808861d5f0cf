package machine

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// TestRandomTransactions loses, repeats and reorders messages of random 2PC and
// TCC runs, crashes coordinator and participants at every point, and checks the
// invariants by name. A failure prints a seed; -machine.seed=N replays it.
func TestRandomTransactions(t *testing.T) {
	if *seedFlag != 0 {
		if _, err := randomTransaction(*seedFlag, t.Logf); err != nil {
			t.Fatal(err)
		}
		return
	}
	base := uint64(time.Now().UnixNano()) >> 10
	ends := map[string]int{}
	for i := range *runsFlag {
		seed := base + uint64(i)
		end, err := randomTransaction(seed, func(string, ...any) {})
		if err != nil {
			t.Fatalf("seed %d: %v\nreplay with -run RandomTransactions -machine.seed=%d -v", seed, err, seed)
		}
		ends[end]++
	}
	t.Logf("seeds from %d; ends: %v", base, ends)
	for _, end := range []string{"committed", "aborted", "committed, heuristic", "aborted, heuristic"} {
		if *runsFlag >= 1000 && ends[end] < *runsFlag/200 {
			t.Errorf("only %d of %d runs ended %s: the test does not reach what it should", ends[end], *runsFlag, end)
		}
	}
}

// TestUndisturbedTransactionsCommit is T4: all yes and no fault, commit.
func TestUndisturbedTransactionsCommit(t *testing.T) {
	for n := 1; n <= 8; n++ {
		rng := rand.New(rand.NewPCG(uint64(n), 1))
		c := newCity(rng, transactionOf(rng, n))
		c.bank.perfect = true
		if err := c.converge(); err != nil {
			t.Fatal(err)
		}
		if c.state.Status() != Committed || c.state.Decision() != DecisionCommit {
			t.Errorf("T4: %d participants, all yes: %v", n, c.state.Status())
		}
	}
}

func transactionOf(rng *rand.Rand, n int) *definitions.Workflow {
	b := definitions.TwoPhase("random").Service("s")
	if rng.IntN(2) == 0 {
		b = definitions.TCC("random").Service("s")
	}
	if rng.IntN(4) == 0 {
		b.Deadline(time.Duration(1+rng.IntN(20)) * time.Second)
	}
	if rng.IntN(4) == 0 {
		b.Lock("['a', 'b', 'c']").LockShared("'a/b'")
	}
	for i := range n {
		p := b.Participant("p" + strconv.Itoa(i)).Prepare("p").Commit("c").Abort("a")
		p.Retry(randomPolicy(rng))
		if rng.IntN(3) == 0 {
			p.PhaseTwoRetry(randomPolicy(rng))
		}
	}
	return b.MustBuild()
}

// city is one run, its participants and what is under way between them.
type city struct {
	rng     *rand.Rand
	wf      *definitions.Workflow
	state   *State
	bank    *bank
	auditor *auditor
	now     time.Time
	records [][]byte
	tasks   []attempt // on their way, or lost and not gone
	answers []Result
	asked   map[attempt]bool
	left    map[int]bool // settled by an operator
	said    Decision     // the answer that was given
	logf    func(string, ...any)
}

func newCity(rng *rand.Rand, wf *definitions.Workflow) *city {
	n := wf.Len()
	return &city{
		rng: rng, wf: wf, state: NewState(wf), auditor: newAuditor(n),
		bank: &bank{rng: rng, single: n == 1, truth: make([]int, n), commits: make([]int, n), failed: map[attempt]Result{}},
		now:  time.UnixMilli(1_700_000_000_000).UTC(), asked: map[attempt]bool{}, left: map[int]bool{},
		logf: func(string, ...any) {},
	}
}

func randomTransaction(seed uint64, logf func(string, ...any)) (string, error) {
	rng := rand.New(rand.NewPCG(seed, 3))
	c := newCity(rng, transactionOf(rng, 1+rng.IntN(4)))
	c.logf = logf
	c.bank.liar = !c.bank.single && rng.IntN(5) == 0
	logf("%s", c.wf.JSON())
	if err := c.step(Start{RunID: "run-" + strconv.FormatUint(seed, 10), Input: []byte(`{"n":1}`)}); err != nil {
		return "", err
	}
	faults := rng.IntN(60)
	for range 5 + rng.IntN(60) {
		if err := c.disturb(faults); err != nil {
			return "", err
		}
	}
	if err := c.converge(); err != nil {
		return "", err
	}
	end := c.state.Status().String()
	if c.state.Heuristic() {
		end += ", heuristic"
	}
	return end, nil
}

// step feeds one input; its events are durable before what they ask for is done.
func (c *city) step(in Input) error {
	was := c.state.Decision()
	events, err := c.state.Step(in, c.now)
	c.logf("%s %T%+v -> %d events, %v", c.now.Format("05.000"), in, in, len(events), err)
	if err != nil {
		for _, known := range []error{ErrEnded, ErrNotStalled, ErrNoStep, ErrNotAllowed, ErrRejected} {
			if errors.Is(err, known) {
				return nil
			}
		}
		return err
	}
	if len(events) > 0 && c.rng.IntN(20) == 0 && len(c.records) > 0 && !c.bank.perfect {
		c.logf("    crash before they are durable")
		return c.recover(false) // the input is lost with them: T8, nobody has heard of a decision
	}
	for _, e := range events {
		c.logf("    %d %s", e.Seq, c.state.Explain(e))
		if err := c.auditor.see(e); err != nil {
			return err
		}
	}
	if len(events) > 0 {
		c.records = append(c.records, AppendEvents(nil, events))
	}
	if d := c.state.Decision(); was != Undecided && d != was || d != c.auditor.decision {
		return fmt.Errorf("T2: %v after %v, by the events %v", d, was, c.auditor.decision)
	}
	if d := c.state.Decision(); c.said != Undecided && d != c.said {
		return fmt.Errorf("T8: %v, and %v was answered", d, c.said)
	}
	if c.state.Heuristic() != c.auditor.alone {
		return fmt.Errorf("T7: a heuristic outcome that is not shown")
	}
	return c.publish()
}

// publish sends what the state asks for and was not sent.
func (c *city) publish() error {
	for _, cmd := range c.state.Commands(nil) {
		a := attempt{cmd.Step, cmd.Phase, cmd.Generation, cmd.Attempt}
		if cmd.Kind != Dispatch || c.asked[a] {
			continue
		}
		if a.phase == Commit && !c.bank.single && c.auditor.decision != DecisionCommit {
			return fmt.Errorf("T6: a commit leaves before the decision")
		}
		c.asked[a] = true
		c.tasks = append(c.tasks, a)
	}
	return nil
}

// recover folds the history, as after a crash of the coordinator, and sends
// again what is asked for.
func (c *city) recover(whole bool) error {
	s := NewState(c.wf)
	for _, data := range c.records {
		events, err := DecodeEvents(data)
		if err != nil {
			return err
		}
		if !bytes.Equal(AppendEvents(nil, events), data) {
			return fmt.Errorf("S12: a record does not encode to itself")
		}
		for _, e := range events {
			if err := s.Apply(e); err != nil {
				return err
			}
		}
	}
	if whole && !bytes.Equal(s.AppendState(nil), c.state.AppendState(nil)) {
		return fmt.Errorf("S12: the fold of the history is not the state")
	}
	if whole && (!slices.Equal(s.Commands(nil), c.state.Commands(nil)) || s.Wake() != c.state.Wake()) {
		return fmt.Errorf("S12: after recovery something else is asked for")
	}
	if d := s.Decision(); c.said != Undecided && d != c.said {
		return fmt.Errorf("T2, T8: %v was answered, and now it is %v", c.said, d)
	}
	c.state = s
	c.asked = map[attempt]bool{} // tasks go out a second time
	return c.publish()
}

func (c *city) checkpoint() error {
	if c.state.Status().Final() {
		return nil
	}
	cp := c.state.Checkpoint(c.now)
	if err := c.state.Apply(cp); err != nil {
		return err
	}
	c.records = append(c.records[:1:1], AppendEvents(nil, []Event{cp}))
	return c.recover(true)
}

// disturb does one random thing, with so many percent of faults.
func (c *city) disturb(faults int) error {
	if c.rng.IntN(100) >= faults {
		return c.proceed()
	}
	i := c.rng.IntN(c.wf.Len())
	switch c.rng.IntN(12) {
	case 0:
		return c.recover(true)
	case 1:
		return c.checkpoint()
	case 2:
		return c.step(Cancel{By: "ann"})
	case 3:
		if c.rng.IntN(3) == 0 {
			c.bank.decides(i)
		}
	case 4:
		return c.ask(i)
	case 5:
		c.now = c.now.Add(time.Duration(c.rng.IntN(5000)) * time.Millisecond)
		return c.step(Tick{})
	case 6, 7, 8:
		return c.lose()
	case 9: // again
		if len(c.tasks) > 0 {
			c.tasks = append(c.tasks, c.tasks[c.rng.IntN(len(c.tasks))])
		}
	case 10:
		if len(c.answers) > 0 {
			c.answers = append(c.answers, c.answers[c.rng.IntN(len(c.answers))])
		}
	case 11:
		return c.settle()
	}
	return nil
}

// proceed delivers a task or an answer, in no order.
func (c *city) proceed() error {
	n := len(c.tasks) + len(c.answers)
	if n == 0 {
		return c.tick()
	}
	k := c.rng.IntN(n)
	if k < len(c.tasks) {
		a := c.tasks[k]
		c.tasks = slices.Delete(c.tasks, k, k+1)
		r, err := c.bank.perform(a)
		c.logf("  %+v: outcome %d %s", a, r.Outcome, r.Code)
		c.answers = append(c.answers, r)
		return err
	}
	k -= len(c.tasks)
	r := c.answers[k]
	c.answers = slices.Delete(c.answers, k, k+1)
	return c.step(r)
}

// lose declares an attempt lost, or withdrawn or expired; it may not be gone.
func (c *city) lose() error {
	cmds := c.state.Commands(nil)
	if len(cmds) == 0 {
		return nil
	}
	cmd := cmds[c.rng.IntN(len(cmds))]
	a := attempt{cmd.Step, cmd.Phase, cmd.Generation, cmd.Attempt}
	waits := func(b attempt) bool { return b == a }
	unsent := slices.ContainsFunc(c.tasks, waits) && !slices.ContainsFunc(c.answers, func(r Result) bool {
		return attempt{r.Step, r.Phase, r.Generation, r.Attempt} == a
	})
	gone := c.rng.IntN(2) == 0
	if gone {
		c.tasks = slices.DeleteFunc(c.tasks, waits)
	}
	switch n := c.rng.IntN(10); {
	case n < 2 && gone && unsent && !c.bank.liar && c.bank.truth[a.step] == untouched && cmd.Kind != Dispatch:
		delete(c.asked, a)
		return c.step(Withdrawn{a.step, a.phase, a.generation, a.number})
	case n < 4:
		return c.step(Expired{a.step, a.phase, a.generation, a.number, true})
	}
	return c.step(Lost{a.step, a.phase, a.generation, a.number, LostWorkerDied + LossReason(c.rng.IntN(3)), "w1", nil})
}

// ask has a participant ask for the decision and follow it. Time is taken into
// account before the answer, and the answer is durable before it is given.
func (c *city) ask(i int) error {
	if err := c.step(Tick{}); err != nil {
		return err
	}
	d := c.state.Decision()
	if c.said != Undecided && d != c.said {
		return fmt.Errorf("T2, T8: %v was answered, and now %v", c.said, d)
	}
	durable := NewState(c.wf)
	for _, data := range c.records {
		events, err := DecodeEvents(data)
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := durable.Apply(e); err != nil {
				return err
			}
		}
	}
	if durable.Decision() != d {
		return fmt.Errorf("T8: %v is answered, and on disk it is %v", d, durable.Decision())
	}
	c.said = d
	c.bank.asks(i, d)
	return nil
}

func (c *city) tick() error {
	if in, ok := lockAnswer(c.rng, c.state, c.rng.IntN(2) == 0); ok {
		return c.step(in)
	}
	if wake := c.state.Wake(); wake.After(c.now) {
		c.now = wake
	}
	return c.step(Tick{})
}

// settle has an operator settle a stalled participant, mostly by another try.
func (c *city) settle() error {
	for _, i := range c.state.StalledSteps(nil) {
		switch n := c.rng.IntN(8); {
		case n > 1:
			return c.step(Retry{Step: i})
		case n == 1 && !c.bank.single:
			c.left[i] = true
			return c.step(Skip{Step: i, Reason: "enough"})
		case c.bank.single:
			c.left[i] = true // a task that is under way may prove the operator wrong
			return c.step(Resolve{Step: i, Applied: c.bank.truth[i] == committed, Reason: "looked"})
		default:
			c.left[i] = true
			return c.step(Resolve{Step: i, Applied: true, Reason: "looked"})
		}
	}
	return nil
}

// converge ends all faults: everybody decides (T5).
func (c *city) converge() error {
	if c.state.Seq() == 0 {
		if err := c.step(Start{RunID: "r"}); err != nil {
			return err
		}
	}
	for n := 0; !c.state.Status().Final(); n++ {
		if n > 5000 {
			return fmt.Errorf("T5: no end in sight, %v", c.state.Status())
		}
		c.bank.perfect = c.bank.perfect || n > 100
		var err error
		switch stalled := len(c.state.StalledSteps(nil)) > 0; {
		case len(c.tasks)+len(c.answers) > 0:
			err = c.proceed()
		case stalled:
			err = c.settle()
		default:
			if err = c.lapse(); err == nil {
				err = c.tick()
			}
		}
		if err != nil {
			return err
		}
	}
	// What is still under way arrives; those in doubt ask.
	for len(c.tasks)+len(c.answers) > 0 {
		if err := c.proceed(); err != nil {
			return err
		}
	}
	for i := range c.bank.truth {
		if err := c.ask(i); err != nil {
			return err
		}
	}
	if c.bank.liar {
		return nil
	}
	return c.bank.audit(c.state, func(i int) bool { return c.left[i] })
}

// lapse has the attempts time out that nobody will answer any more.
func (c *city) lapse() error {
	for _, cmd := range c.state.Commands(nil) {
		if err := c.step(Lost{cmd.Step, cmd.Phase, cmd.Generation, cmd.Attempt, LostTimeout, "w1", nil}); err != nil {
			return err
		}
	}
	return nil
}
