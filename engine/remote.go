package engine

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// startArgs are the arguments of a call that starts runs of one shard.
type startArgs struct {
	Starts  []rest.Start `json:"starts"`
	RetryOf string       `json:"retry_of,omitempty"`
}

// startAnswer is what became of one of them.
type startAnswer struct {
	Run   rest.Started `json:"run"`
	Error *refusal     `json:"error,omitempty"`
}

// startHere carries out a call of another orchestrator.
func (e *Engine) startHere(ctx context.Context, a startArgs) ([]startAnswer, error) {
	out := make([]startAnswer, len(a.Starts))
	for i, r := range e.startLocal(ctx, a.Starts, a.RetryOf) {
		if out[i].Run = r.run; r.err != nil {
			out[i].Error = refusalOf(r.err)
		}
	}
	return out, nil
}

// startAnywhere starts runs, those of a shard together, each shard's side by
// side. Runs without an id are given one of a shard that is here.
func (e *Engine) startAnywhere(ctx context.Context, starts []rest.Start, retryOf string) []startResult {
	out := make([]startResult, len(starts))
	groups := map[uint32][]int{}
	var local []int
	for i := range starts {
		id := starts[i].ID
		if id == "" && e.ownsAny() {
			local = append(local, i)
			continue
		}
		if id == "" {
			id = e.newID()
			starts[i].ID = id
		}
		if e.owns(id) {
			local = append(local, i)
		} else {
			shard := e.shardOf(id)
			groups[shard] = append(groups[shard], i)
		}
	}
	of := func(group []int) []rest.Start {
		chosen := make([]rest.Start, len(group))
		for j, i := range group {
			chosen[j] = starts[i]
		}
		return chosen
	}
	var asked sync.WaitGroup
	for _, group := range groups {
		asked.Go(func() {
			answers, err := ask[[]startAnswer](ctx, e, order{Method: errandStart, ID: starts[group[0]].ID}, startArgs{Starts: of(group), RetryOf: retryOf})
			for j, i := range group {
				switch {
				case err != nil:
					out[i].err = err
				case j >= len(answers):
					out[i].err = errMoved()
				case answers[j].Error != nil:
					out[i].err = answers[j].Error.err()
				default:
					out[i].run = answers[j].Run
				}
			}
		})
	}
	if len(local) > 0 {
		for j, r := range e.startLocal(ctx, of(local), retryOf) {
			out[local[j]] = r
		}
	}
	asked.Wait()
	return out
}

// ownsAny tells whether any shard is owned here.
func (e *Engine) ownsAny() bool {
	for range e.shards.all() {
		return true
	}
	return false
}

// colleagues has all orchestrators that are heard of carry out a method, and
// gives what those answer in time to f, one after the other.
func colleagues[T any](ctx context.Context, e *Engine, method string, f func(T)) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, id := range e.roster.ids() {
		asked.Go(func() {
			r, err := e.errands.try(ctx, protocol.NodeKey(id), &order{Method: method})
			var out T
			if err != nil || r == nil || r.Error != nil || json.Unmarshal(r.Result, &out) != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			f(out)
		})
	}
	asked.Wait()
}
