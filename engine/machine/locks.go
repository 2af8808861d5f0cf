package machine

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// LockView is a named lock that a run wants.
type LockView struct {
	Name   string
	Shared bool
	Token  uint64 // under which the run holds it; 0: it does not yet
}

// Granted says that a run holds one of its locks, under a token.
type Granted struct {
	Lock  string
	Token uint64
}

// Refused says that a run will not get one of its locks: too many wait for it.
type Refused struct {
	Lock    string
	Message string
}

func (Granted) input() {}
func (Refused) input() {}

// Locks are the named locks that the run wants, in the order in which it asks
// for them. The slice must not be changed.
func (s *State) Locks() []LockView { return s.locks }

// NextLock is the lock that the run asks for now; not ok if it holds all that it
// wants, or has no use for them any more. The shell asks until it is answered,
// by Granted or Refused; after a crash it asks again.
func (s *State) NextLock() (l LockView, ok bool) {
	if s.status == 0 || s.status.Final() {
		return LockView{}, false
	}
	if i := s.missing(); i >= 0 {
		return s.locks[i], true
	}
	return LockView{}, false
}

// missing is the index of the first lock that the run does not hold; -1 if it
// holds all.
func (s *State) missing() int {
	return slices.IndexFunc(s.locks, func(l LockView) bool { return l.Token == 0 })
}

// lockIndex is the index of a lock of that name; -1 if the run wants none.
func (s *State) lockIndex(name string) int {
	i, ok := slices.BinarySearchFunc(s.locks, name, func(l LockView, name string) int { return strings.Compare(l.Name, name) })
	if !ok {
		return -1
	}
	return i
}

// wantLocks records which locks the run wants.
func (d *decision) wantLocks(locks []definitions.Lock) {
	if len(locks) == 0 {
		return
	}
	list := make([]lockWanted, len(locks))
	for i, l := range locks {
		list[i] = lockWanted(l)
	}
	payload, err := json.Marshal(list)
	if err != nil {
		panic(err) // strings and booleans have a JSON form
	}
	d.emit(Event{Kind: LocksWanted, Step: -1, Payload: payload})
}

// lockWanted is a lock in the payload of LocksWanted.
type lockWanted struct {
	Name   string `json:"name"`
	Shared bool   `json:"shared,omitempty"`
}

// granted takes a lock. An answer that was given before changes nothing.
func (d *decision) granted(in *Granted) error {
	i := d.lockIndex(in.Lock)
	if i < 0 || in.Token == 0 {
		return fmt.Errorf("%w: lock %q under token %d is not one that the run wants", ErrNotAllowed, in.Lock, in.Token)
	}
	if d.status.Final() || d.locks[i].Token != 0 {
		return nil
	}
	d.emit(Event{Kind: LockGranted, Step: -1, Key: in.Lock, Token: in.Token})
	return nil
}

// refused turns a run that cannot get one of its locks. No step has started.
func (d *decision) refused(in *Refused) error {
	i := d.lockIndex(in.Lock)
	if i < 0 {
		return fmt.Errorf("%w: lock %q is not one that the run wants", ErrNotAllowed, in.Lock)
	}
	if d.status.Final() || d.locks[i].Token != 0 {
		return nil
	}
	message := cut(in.Message, MaxMessageBytes)
	if d.participants {
		d.decideAbort(-1, CodeLockRefused, message)
	} else {
		d.turn(-1, CodeLockRefused, message)
	}
	return nil
}

// checkLock is the part of check that concerns locks: they are wanted at the
// start, each is granted once, and nothing begins before all are.
func (s *State) checkLock(e *Event) error {
	fits := true
	switch e.Kind {
	case LocksWanted:
		locks, err := decodeLocks(e.Payload)
		fits = s.seq == 1 && err == nil && len(locks) > 0
	case LockGranted:
		i := s.lockIndex(e.Key)
		fits = i >= 0 && s.locks[i].Token == 0 && e.Token != 0
	case AttemptScheduled, WaitStarted, DecidedCommit, RunSucceeded:
		fits = s.missing() < 0
	}
	if !fits {
		return fmt.Errorf("%w: event %d (%v) does not fit the run's locks", ErrCorrupt, e.Seq, e.Kind)
	}
	return nil
}

// foldLock is for the kinds of event that concern locks.
func (s *State) foldLock(e *Event) {
	switch e.Kind {
	case LocksWanted:
		s.locks, _ = decodeLocks(e.Payload) // checked
	case LockGranted:
		s.locks[s.lockIndex(e.Key)].Token = e.Token
	}
}

// decodeLocks reads the payload of LocksWanted.
func decodeLocks(payload []byte) ([]LockView, error) {
	var list []lockWanted
	if err := json.Unmarshal(payload, &list); err != nil {
		return nil, err
	}
	locks := make([]LockView, len(list))
	for i, l := range list {
		locks[i] = LockView{Name: l.Name, Shared: l.Shared}
	}
	if !inOrder(locks) {
		return nil, fmt.Errorf("%w: locks out of order", ErrCorrupt)
	}
	return locks, nil
}

// inOrder tells whether each lock's name is above the one before.
func inOrder(locks []LockView) bool {
	for i := range locks {
		if i > 0 && locks[i].Name <= locks[i-1].Name {
			return false
		}
	}
	return true
}

// appendLocks encodes the locks for a snapshot.
func appendLocks(b []byte, locks []LockView) []byte {
	b = binary.AppendUvarint(b, uint64(len(locks)))
	for _, l := range locks {
		b = append(appendString(b, l.Name), flags(l.Shared))
		b = binary.AppendUvarint(b, l.Token)
	}
	return b
}

// locks reads what appendLocks wrote.
func (r *reader) locks() (locks []LockView) {
	for range r.upTo(definitions.MaxLockNames, "number of locks") {
		l := LockView{Name: r.string()}
		r.flags(&l.Shared)
		l.Token = r.uvarint()
		locks = append(locks, l)
	}
	if !inOrder(locks) {
		r.fail("locks out of order")
	}
	return locks
}

// locks tells which locks the run wants.
func (x *explainer) locks() {
	locks, _ := decodeLocks(x.e.Payload)
	x.say("the run wants ", plural(len(locks), "lock"), ":")
	for i, l := range locks {
		if i > 0 {
			x.say(",")
		}
		x.say(" ", l.Name)
		if l.Shared {
			x.say(" (shared)")
		}
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "the " + what
	}
	return "the " + what + "s"
}
