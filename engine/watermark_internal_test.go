package engine

import (
	"fmt"
	"testing"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// settle has a worker's result of that number become durable.
func (d *desk) settle(worker string, seq uint64) {
	d.dispatcher.settled([]settledResult{{worker: worker, seq: seq}})
}

// controls are the workers that are told their watermark by a control.
func (d *desk) controls() (n int) {
	for _, p := range d.collect(nil) {
		for _, m := range d.eng.pack(nil, &p) {
			if m.Type == string(protocol.KindControl) {
				n++
			}
		}
	}
	return n
}

func TestAWatermarkIsToldOnceAndWhenItIsMissed(t *testing.T) {
	d := newDesk(t)
	d.beat("a", "qa", nil)
	expect := func(what string, want map[string]uint64) {
		t.Helper()
		if got := d.tellMarks(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v is announced, not %v", what, got, want)
		}
	}
	expect("before there is anything", nil)
	d.settle("a", 2)
	expect("before number 1 has come", nil)
	d.settle("a", 1)
	expect("when both have", map[string]uint64{"a": 2})
	expect("once more", nil)
	d.settle("a", 1)
	expect("when one was sent again", map[string]uint64{"a": 2})
	d.settle("a", 3)
	d.untold(d.tellMarks())
	expect("when an announcement was not sent", map[string]uint64{"a": 3})
	d.settle("a", 4)
	d.give(1)
	d.expect("a task", map[string]int{"qa": 1})
	expect("when a task has told it", nil)
	d.answered([]protocol.Result{{TaskID: task(1), Worker: "a", Outcome: protocol.OutcomeSucceeded}})
	d.settle("a", 5)
	d.returned("qa", nil) // it is unreachable, and back
	d.beat("a", "qb", nil)
	d.expect("what was held back", map[string]int{})
	expect("when nothing else was to be sent", map[string]uint64{"a": 5})
}

func TestWatermarksOfManyWorkersAreToldByControls(t *testing.T) {
	d := newDesk(t)
	const workers = 2 * maxAnnounced
	d.populate(workers)
	settleAll := func(n uint64) {
		for i := range workers {
			d.settle(fmt.Sprintf("w%d", i), n)
		}
	}
	settleAll(1)
	if n := len(d.tellMarks()) + d.controls(); n != workers {
		t.Errorf("%d workers are told", n)
	}
	if n := len(d.tellMarks()) + d.controls(); n != 0 {
		t.Errorf("%d workers are told again", n)
	}
	settleAll(2)
	settleAll(2) // sent again by all, as if none looks at controls
	if n := len(d.tellMarks()); n != workers {
		t.Errorf("%d workers that send again are told by an announcement", n)
	}
	for i := range maxAnnounced {
		d.settle(fmt.Sprintf("w%d", i), 3)
	}
	if n := len(d.tellMarks()); n != maxAnnounced {
		t.Errorf("%d workers of not too many are told by an announcement", n)
	}
}
