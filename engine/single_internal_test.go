package engine

import (
	"slices"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// Tasks that travel alone keep their place among the others: numbers arrive in
// order, so that a heartbeat between two messages counts none that is to come.
func TestTasksThatTravelAloneKeepTheOrderOfNumbers(t *testing.T) {
	e := idleEngine(t, nil)
	for _, c := range []struct {
		batches bool
		single  string // by task
		want    []int  // tasks in each message
	}{
		{true, "-----", []int{5}}, {true, "-x--x", []int{1, 1, 2, 1}}, {true, "xx", []int{1, 1}}, {false, "-x-", []int{1, 1, 1}},
	} {
		pc := parcel{queue: "q", version: protocol.Version, batches: c.batches}
		for i, mark := range c.single {
			id := protocol.TaskID{Ref: 1, Step: int32(i), Phase: protocol.PhaseAction, Generation: 1, Attempt: 1}
			task := &protocol.Task{
				TaskID: id, RunID: "r", Workflow: "w", StepName: "s", Service: "s", Type: "t", Owner: "o", Seq: uint64(i + 1), Timeout: time.Second,
			}
			pc.tasks = append(pc.tasks, &sent{entry: entry{id: id, single: mark == 'x'}})
			pc.bodies = append(pc.bodies, task)
		}
		var got []int
		next := uint64(1)
		for _, m := range e.pack(nil, &pc) {
			tasks, _, bad, err := protocol.DecodeTasks(&m)
			if err != nil || len(bad) > 0 {
				t.Fatal(err, bad)
			}
			got = append(got, len(tasks))
			for _, task := range tasks {
				if task.Seq != next {
					t.Errorf("%q: task %d comes where %d should", c.single, task.Seq, next)
				}
				next++
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: messages of %v tasks, want %v", c.single, got, c.want)
		}
	}
}
