package machine

import (
	"fmt"
	"iter"
	"strings"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// DefaultMaxSignals is how many signals a run keeps at most for steps to come,
// where Signal sets no limit.
const DefaultMaxSignals = 64

// Signal tells the run something that a step of its workflow waits for. One that
// comes before its step is kept; several of one name are taken in the order of
// their coming, each by one step. It is refused where no step of the workflow
// waits for the name (ErrRejected), where no step will wait for it any more
// (ErrNotAllowed), and where the run keeps too many (ErrTooMany). A signal with
// an ID that the run has received is not received again: ErrRepeated says so,
// also once the run has ended; with another name or payload it is ErrNotAllowed.
type Signal struct {
	Name    string
	ID      string // the sender's, to tell a repetition; may be empty
	Payload []byte // JSON; empty is null
	By      string
	Limit   int // how many a run keeps for steps to come; 0 is DefaultMaxSignals
}

// signal is one that the run has received. Of one that was taken, what tells a
// repetition is left.
type signal struct {
	name, id string
	sum      uint64 // of the payload
	payload  []byte
	taken    bool
}

// signal takes a signal in.
func (d *decision) signal(in *Signal) error {
	sum, kept := checksum(in.Payload), 0
	for i := range d.signals {
		g := &d.signals[i]
		if !g.taken {
			kept++
		}
		switch {
		case in.ID == "" || g.id != in.ID:
		case g.name != in.Name || g.sum != sum:
			return fmt.Errorf("%w: signal %s was received with another name or payload", ErrNotAllowed, in.ID)
		default:
			return ErrRepeated
		}
	}
	limit := in.Limit
	if limit == 0 {
		limit = DefaultMaxSignals
	}
	switch {
	case d.status.Final():
		return ErrEnded
	case !d.wf.WaitsFor(in.Name):
		return fmt.Errorf("%w: no step of workflow %s waits for a signal %s%s", ErrRejected, d.wf.Name(), in.Name, waitedFor(d.wf))
	case d.turned:
		return fmt.Errorf("%w: the run has turned back, and waits for no signal", ErrNotAllowed)
	case !d.expects(in.Name, stepPending):
		return fmt.Errorf("%w: every step that waits for a signal %s is done", ErrNotAllowed, in.Name)
	case kept >= limit && !d.expects(in.Name, stepActive): // it would be kept
		return fmt.Errorf("%w: the run keeps %d signals for steps to come, which is the limit", ErrTooMany, kept)
	}
	d.emit(Event{Kind: SignalReceived, Step: -1, Name: in.Name, ID: in.ID, By: in.By, Payload: in.Payload})
	return nil
}

// waitedFor names the signals that a workflow knows, for a message.
func waitedFor(wf *definitions.Workflow) string {
	if names := wf.Signals(); len(names) > 0 {
		return "; it knows " + strings.Join(names, ", ")
	}
	return ""
}

// expects tells whether a step waits for signals of that name, or (from
// stepPending on) will.
func (s *State) expects(name string, from stepState) bool {
	for i := range s.wf.Len() {
		st, def := &s.steps[i], s.def(i)
		if def.Kind == definitions.StepSignal && def.Signal == name && (st.state >= from && st.state <= stepActive || st.stalled != 0) {
			return true
		}
	}
	return false
}

// next is the signal that a step which waits for that name takes: the oldest
// that none has taken. -1 if there is none.
func (s *State) next(name string) int {
	for i := range s.signals {
		if g := &s.signals[i]; g.name == name && !g.taken {
			return i
		}
	}
	return -1
}

// takes emits that a step takes a signal, if there is one for it.
func (d *decision) takes(i int) bool {
	k := d.next(d.def(i).Signal)
	if k >= 0 {
		d.emit(Event{Kind: WaitEnded, Step: i, Phase: Action, Name: d.signals[k].name, ID: d.signals[k].id})
	}
	return k >= 0
}

// timesOut draws the consequence of a signal that did not come in time.
func (d *decision) timesOut(i int) {
	def := d.def(i)
	if !def.HasTimeoutOutput {
		d.emit(Event{
			Kind: StepFailed, Step: i, Phase: Action, Generation: 1, Code: CodeSignalTimeout,
			Message: fmt.Sprintf("no signal %s came within %s", def.Signal, def.Timeout),
		})
		d.concludes(i, Action, CodeSignalTimeout)
		return
	}
	output, err := d.getScope().TimeoutOutput(i)
	if err != nil {
		d.refuse(i, Action, 1, err)
		return
	}
	d.emit(Event{Kind: WaitEnded, Step: i, Phase: Action, Code: CodeSignalTimeout, Payload: output})
}

// Signals are the names and ids of the signals that the run keeps for steps to
// come, in the order of their coming.
func (s *State) Signals() iter.Seq2[string, string] {
	return func(yield func(name, id string) bool) {
		for i := range s.signals {
			if g := &s.signals[i]; !g.taken && !yield(g.name, g.id) {
				return
			}
		}
	}
}

// AwaitsSignal tells whether a step waits for a signal now. If the run asks for
// nothing and wants no Tick, a signal or an order is all that can move it on.
func (s *State) AwaitsSignal() bool {
	for i := range s.steps {
		if s.steps[i].state == stepActive && s.Def(i).Kind == definitions.StepSignal {
			return true
		}
	}
	return false
}

func (s *State) foldSignal(e *Event) {
	s.signals = append(s.signals, signal{name: e.Name, id: e.ID, sum: checksum(e.Payload), payload: e.Payload})
}

// taken marks the next signal of that name as taken, and returns its payload.
// What is to tell no repetition is forgotten.
func (s *State) taken(name string) []byte {
	k := s.next(name)
	payload := s.signals[k].payload
	if s.signals[k].id == "" {
		s.signals = append(s.signals[:k:k], s.signals[k+1:]...)
		return payload
	}
	s.signals[k].payload, s.signals[k].taken = nil, true
	return payload
}

// checksum tells payloads apart (FNV-1a).
func checksum(p []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range orNull(p) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}
