package testkit

import (
	"time"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// lockFate is what befalls the run's request for a lock.
type lockFate struct {
	wait    time.Duration
	refused bool
}

// LockWait has the run wait for a named lock for so long, as if another run held
// it. By default nobody does.
func (k *Kit) LockWait(name string, d time.Duration) {
	k.t.Helper()
	k.lockFate(name, lockFate{wait: d})
}

// LockRefused has the orchestrator refuse a named lock, as it does when too many
// runs wait for it.
func (k *Kit) LockRefused(name string) {
	k.t.Helper()
	k.lockFate(name, lockFate{refused: true})
}

func (k *Kit) lockFate(name string, f lockFate) {
	k.t.Helper()
	if !k.wf.HasLocks() {
		k.t.Fatalf("testkit: workflow %s has no locks", k.wf.Name())
	}
	if k.locks == nil {
		k.locks = map[string]lockFate{}
	}
	k.locks[name] = f
}

// askLock answers the lock that the run asks for, if it does. Tokens are those of
// a first grant, a second one, and so on.
func (s *simulation) askLock() {
	l, ok := s.state.NextLock()
	if !ok || l.Name == s.asking {
		return
	}
	s.asking = l.Name
	fate := s.locks[l.Name]
	c := coming{at: s.now.Add(fate.wait), in: machine.Refused{Lock: l.Name, Message: "lock " + l.Name + ": too many runs wait for it"}}
	if !fate.refused {
		s.tokens++
		c.in = machine.Granted{Lock: l.Name, Token: s.tokens}
	}
	s.enqueue(c)
}

// lockTokens are the tokens that the run's tasks carry.
func (s *simulation) lockTokens() (tokens []protocol.Token) {
	for _, l := range s.state.Locks() {
		tokens = append(tokens, protocol.Token{Name: l.Name, Token: l.Token})
	}
	if s.wf.Serial() { // a new one each time that a task is sent
		s.tokens++
		tokens = append(tokens, protocol.Token{Name: definitions.SerialPrefix + s.wf.Name() + "/" + s.state.RoutingKey(), Token: s.tokens})
	}
	return tokens
}
