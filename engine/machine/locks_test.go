package machine

import (
	"errors"
	"strconv"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

// lockInput reads the commands about locks: "granted NAME token=N" and "refused
// NAME".
func (sc *script) lockInput(td *datadriven.TestData) Input {
	switch td.Cmd {
	case "granted":
		token, err := strconv.ParseUint(value(td.CmdArgs, "token"), 10, 64)
		if err != nil {
			sc.t.Fatalf("granted: %v", err)
		}
		return Granted{Lock: word(td.CmdArgs), Token: token}
	case "refused":
		return Refused{Lock: word(td.CmdArgs), Message: td.Input}
	}
	return nil
}

func TestHistoriesThatDoNotFitTheirLocksAreRefused(t *testing.T) {
	b := definitions.Saga("locked").Service("s").Lock("['a', 'b']")
	b.Step("one").Action("do").Compensation("undo")
	wf := b.MustBuild()
	start := Event{Seq: 1, Kind: RunStarted, Step: -1, RunID: "r"}
	wants := Event{Seq: 2, Kind: LocksWanted, Step: -1, Payload: []byte(`[{"name":"a"},{"name":"b","shared":true}]`)}
	granted := func(seq uint64, name string, token uint64) Event {
		return Event{Seq: seq, Kind: LockGranted, Step: -1, Key: name, Token: token}
	}
	attempt := func(seq uint64) Event {
		return Event{Seq: seq, Kind: AttemptScheduled, Step: 0, Phase: Action, Generation: 1, Attempt: 1}
	}
	if _, err := Fold(wf, []Event{start, wants, granted(3, "b", 7), granted(4, "a", 8), attempt(5)}); err != nil {
		t.Fatal(err)
	}
	for name, history := range map[string][]Event{
		"a step before its locks":  {start, wants, granted(3, "a", 7), attempt(4)},
		"a lock twice":             {start, wants, granted(3, "a", 7), granted(4, "a", 8)},
		"a lock without a token":   {start, wants, granted(3, "a", 0)},
		"a lock that nobody wants": {start, wants, granted(3, "c", 7)},
		"wants late":               {start, {Seq: 2, Kind: CancelRequested, Step: -1}, {Seq: 3, Kind: LocksWanted, Step: -1, Payload: wants.Payload}},
		"wants out of order":       {start, {Seq: 2, Kind: LocksWanted, Step: -1, Payload: []byte(`[{"name":"b"},{"name":"a"}]`)}},
		"wants nothing":            {start, {Seq: 2, Kind: LocksWanted, Step: -1, Payload: []byte(`[]`)}},
		"wants nonsense":           {start, {Seq: 2, Kind: LocksWanted, Step: -1, Payload: []byte(`{`)}},
	} {
		if _, err := Fold(wf, history); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}
