package engine

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// Whatever one shard may tell another says the same to an owner elsewhere as it
// does to one in the same process.
func TestLettersSayWhatMessagesSay(t *testing.T) {
	id := protocol.TaskID{Ref: 4, Step: 2, Phase: protocol.PhaseAction, Generation: 1, Attempt: 3}
	input := json.RawMessage(`{"n":1}`)
	for name, m := range map[string]message{
		"lock":          {ref: 4, lock: &lockMessage{verb: lockAsk, name: "l", ref: 7, runID: "r-1", shared: true}},
		"turn asked":    {turn: &turnMessage{verb: turnAsk, name: "serial:w/k", id: id, scheduled: 5, of: 6, epoch: 7}},
		"turn granted":  {turn: &turnMessage{verb: turnGrant, name: "serial:w/k", id: id, token: 32, ahead: 1}},
		"turns counted": {turn: &turnMessage{verb: turnCount, of: 6}},
		"turns claimed": {turn: &turnMessage{verb: turnClaims, of: 6, epoch: 7, claims: []claim{{Name: "serial:w/k", ID: id, Held: true, Token: 32, Scheduled: 5}}}},
		"no claims":     {turn: &turnMessage{verb: turnClaims, of: 6, epoch: 7}},
		"child":         {runID: "c-1", child: &childRequest{of: id, id: "c-1", parent: machine.Parent{}, whole: true, workflow: "w", start: machine.Start{Input: input}}},
		"child probed":  {runID: "c-1", child: &childRequest{of: id, id: "c-1"}},
		"word":          {ref: 4, runID: "r-1", word: &childWord{of: id, there: true}},
		"result":        {ref: 4, runID: "r-1", input: machine.Result{Output: input}},
		"withdrawn":     {ref: 4, runID: "r-1", input: machine.Withdrawn{}},
	} {
		body, err := json.Marshal([]letter{letterOf(9, &m)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var letters []letter
		if err := json.Unmarshal(body, &letters); err != nil {
			t.Errorf("%s: %v in %s", name, err, body)
			continue
		}
		if got, ok := letters[0].message(); !ok || letters[0].Shard != 9 || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: %+v came as %+v, in %s", name, m, got, body)
		}
	}
}
