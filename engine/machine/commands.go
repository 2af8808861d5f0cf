package machine

import "time"

// CommandKind is what a Command asks for.
type CommandKind uint8

// The kinds of command.
const (
	Dispatch   CommandKind = iota + 1 // have a worker perform this attempt
	CancelTask                        // withdraw it if unsent (answer Withdrawn), else tell its worker to give up
	Withdraw                          // withdraw it if unsent (answer Withdrawn), else let it be
)

// Command is one thing that the state asks the shell to do. An attempt that is
// outstanding has a Dispatch; after the turn to backward recovery an
// outstanding action has a CancelTask as well. The outstanding attempt of a
// step that was settled by an earlier attempt's success has a CancelTask alone,
// and so has an outstanding prepare once abort was decided.
// A pivot that is outstanding when the run is asked to turn back has a Dispatch
// and a Withdraw: nobody may interrupt it, but it need not begin. The same holds
// for a commit in one phase.
type Command struct {
	Kind       CommandKind
	Step       int
	Phase      Phase
	Generation uint32
	Attempt    uint32
	Scheduled  time.Time // when the attempt was decided
}

// Commands appends to buf what the state asks for, in a stable order: by step,
// its action before its compensation (its prepare before its commit or abort),
// Dispatch before CancelTask. A run that
// has ended asks for nothing.
func (s *State) Commands(buf []Command) []Command {
	if s.status.Final() {
		return buf
	}
	one, two := s.phases()
	for i := range s.live() {
		st := &s.steps[i]
		if st.action.outstanding {
			buf = s.commands(buf, i, one, &st.action)
		}
		if st.comp != nil && st.comp.outstanding {
			buf = s.commands(buf, i, two, st.comp)
		}
	}
	return buf
}

func (s *State) commands(buf []Command, i int, p Phase, t *task) []Command {
	c := Command{
		Kind: Dispatch, Step: i, Phase: p, Generation: t.generation, Attempt: t.attempt,
		Scheduled: fromMilli(t.scheduled),
	}
	settled := s.settled(i, p)
	givenUp := s.turned && s.first(p)
	if !settled && !(givenUp && s.participants) {
		buf = append(buf, c)
	}
	if settled || givenUp {
		c.Kind = CancelTask
		buf = append(buf, c)
	} else if s.first(p) && (s.cancelled || s.overdue) && (s.single || s.def(i).Pivot) {
		c.Kind = Withdraw
		buf = append(buf, c)
	}
	return buf
}
