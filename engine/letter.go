package engine

import (
	"context"
	"encoding/json"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// letter is what one shard tells another, where that has an owner elsewhere. It
// is sent at most once: whoever waits for an answer asks again.
type letter struct {
	Shard uint32 `json:"shard"`
	// Ref and Run name the run that it is for, if it is for one.
	Ref int64  `json:"ref,omitempty"`
	Run string `json:"run,omitempty"`

	// One of these is set.
	Lock      *lockLetter        `json:"lock,omitempty"`
	Turn      *turnLetter        `json:"turn,omitempty"`
	Child     *childLetter       `json:"child,omitempty"`
	Word      *wordLetter        `json:"word,omitempty"`
	Result    *machine.Result    `json:"result,omitempty"`
	Withdrawn *machine.Withdrawn `json:"withdrawn,omitempty"`
}

type lockLetter struct {
	Verb   lockVerb `json:"verb"`
	Name   string   `json:"name"`
	Ref    int64    `json:"ref"`
	Run    string   `json:"run"`
	Shared bool     `json:"shared,omitempty"`
	Token  uint64   `json:"token,omitempty"`
	Text   string   `json:"text,omitempty"`
}

type turnLetter struct {
	Verb      turnVerb        `json:"verb"`
	Name      string          `json:"name,omitempty"`
	ID        protocol.TaskID `json:"id,omitzero"` // a count, and claims, are about no one task
	Scheduled int64           `json:"scheduled,omitempty"`
	Token     uint64          `json:"token,omitempty"`
	Ahead     int             `json:"ahead,omitempty"`
	Of        uint32          `json:"of"`
	Epoch     uint64          `json:"epoch,omitempty"`
	Claims    []claim         `json:"claims,omitempty"`
}

type childLetter struct {
	Of       protocol.TaskID `json:"of"`
	ID       string          `json:"id"`
	Parent   machine.Parent  `json:"parent"`
	Whole    bool            `json:"whole,omitempty"`
	Workflow string          `json:"workflow,omitempty"`
	Start    *machine.Start  `json:"start,omitempty"`
	Cancel   *machine.Cancel `json:"cancel,omitempty"`
}

type wordLetter struct {
	Of    protocol.TaskID `json:"of"`
	There bool            `json:"there,omitempty"`
}

// letterOf writes down a message between shards. The others never leave their
// process, and are not asked for here.
func letterOf(shard uint32, m *message) letter {
	l := letter{Shard: shard, Ref: m.ref, Run: m.runID}
	switch {
	case m.lock != nil:
		k := m.lock
		l.Lock = &lockLetter{Verb: k.verb, Name: k.name, Ref: k.ref, Run: k.runID, Shared: k.shared, Token: k.token, Text: k.text}
	case m.turn != nil:
		t := m.turn
		l.Turn = &turnLetter{Verb: t.verb, Name: t.name, ID: t.id, Scheduled: t.scheduled, Token: t.token, Ahead: t.ahead, Of: t.of, Epoch: t.epoch, Claims: t.claims}
	case m.child != nil:
		q := m.child
		l.Child = &childLetter{Of: q.of, ID: q.id, Parent: q.parent, Whole: q.whole, Workflow: q.workflow, Cancel: q.cancel}
		if q.whole {
			l.Child.Start = &q.start
		}
	case m.word != nil:
		l.Word = &wordLetter{Of: m.word.of, There: m.word.there}
	default:
		switch in := m.input.(type) {
		case machine.Result:
			l.Result = &in
		case machine.Withdrawn:
			l.Withdrawn = &in
		}
	}
	return l
}

// message is what a letter says.
func (l *letter) message() (message, bool) {
	m := message{ref: l.Ref, runID: l.Run}
	switch {
	case l.Lock != nil:
		k := l.Lock
		m.lock = &lockMessage{verb: k.Verb, name: k.Name, ref: k.Ref, runID: k.Run, shared: k.Shared, token: k.Token, text: k.Text}
	case l.Turn != nil:
		t := l.Turn
		m.turn = &turnMessage{verb: t.Verb, name: t.Name, id: t.ID, scheduled: t.Scheduled, token: t.Token, ahead: t.Ahead, of: t.Of, epoch: t.Epoch, claims: t.Claims}
	case l.Child != nil:
		q := l.Child
		m.child = &childRequest{of: q.Of, id: q.ID, parent: q.Parent, whole: q.Whole, workflow: q.Workflow, cancel: q.Cancel}
		if q.Start != nil {
			m.child.start = *q.Start
		}
		if q.Whole && q.Start == nil {
			return m, false
		}
	case l.Word != nil:
		m.word = &childWord{of: l.Word.Of, there: l.Word.There}
	case l.Result != nil:
		m.input = *l.Result
	case l.Withdrawn != nil:
		m.input = *l.Withdrawn
	default:
		return m, false
	}
	return m, true
}

// maxLetters bounds what goes in one message.
const maxLetters = 256

// mailLoop sends letters, those of one shard together, in the order in which they
// were written.
func (e *Engine) mailLoop(ctx context.Context) {
	var batch []letter
	for {
		select {
		case <-e.outgoing.wake:
		case <-ctx.Done():
			return
		}
		batch = e.outgoing.take(batch)
		by := map[uint32][]letter{}
		for _, l := range batch {
			by[l.Shard] = append(by[l.Shard], l)
			if len(by[l.Shard]) == maxLetters {
				e.mail(ctx, l.Shard, by[l.Shard])
				delete(by, l.Shard)
			}
		}
		for shard, letters := range by {
			e.mail(ctx, shard, letters)
		}
	}
}

func (e *Engine) mail(ctx context.Context, shard uint32, letters []letter) {
	body, err := json.Marshal(letters)
	if err != nil {
		e.log.Error("letters to a shard cannot be written", "shard", shard, "error", err)
		return
	}
	e.metrics.letters.Add(float64(len(letters)))
	_ = e.conn.Publish(ctx, protocol.EncodeLetters(protocol.ShardsExchange(e.cfg.Namespace), shard, e.id, body))
}

// lettersCame hands letters to the shards that they are for. Those of a shard
// that has just gone are lost, like any on the way.
func (e *Engine) lettersCame(body []byte) {
	var letters []letter
	if err := json.Unmarshal(body, &letters); err != nil {
		e.metrics.poison.Inc()
		e.log.Warn("letters of another orchestrator refused", "error", err)
		return
	}
	for i := range letters {
		if m, ok := letters[i].message(); ok {
			e.post(letters[i].Shard, m)
		}
	}
}

// ownerMoved repeats what runs here have asked a shard that has a new owner,
// which may never have heard of it. Of this shard itself, it asks who holds its
// locks.
func (s *shard) ownerMoved(shard uint32) error {
	if shard == s.id {
		s.probeHolders(0)
	}
	if s.keeper.missing[shard] {
		s.sayTurn(shard, turnMessage{verb: turnCount})
	}
	for _, r := range s.runs.byRef {
		if r.asking != "" && s.eng.shardOf(r.asking) == shard {
			if l, ok := r.state.NextLock(); ok {
				s.askLock(r, l)
			}
		}
	}
	for id, a := range s.asked {
		if s.eng.shardOf(a.request.id) != shard {
			continue
		}
		if err := s.askAgain(id); err != nil {
			return err
		}
	}
	return nil
}
