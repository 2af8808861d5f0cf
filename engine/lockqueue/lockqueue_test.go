package lockqueue_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"github.com/ringmaster-dev/ringmaster/engine/lockqueue"
)

// TestScripts runs the scripts in testdata: "ask RUN [shared]", "release RUN".
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var q lockqueue.Queue
		token := uint64(0)
		next := func() uint64 { token++; return token }
		datadriven.RunTest(t, path, func(t *testing.T, td *datadriven.TestData) string {
			id := td.CmdArgs[0].Key
			var ref int64
			for _, c := range id {
				ref = ref*128 + int64(c)
			}
			var out strings.Builder
			switch td.Cmd {
			case "ask":
				a, token, changed := q.Ask(lockqueue.Entry{Ref: ref, RunID: id, Shared: len(td.CmdArgs) > 1}, 3, next)
				fmt.Fprintf(&out, "%v", a)
				if token > 0 {
					fmt.Fprintf(&out, " #%d", token)
				}
				if !changed {
					out.WriteString(", nothing changes")
				}
			case "release":
				granted, changed := q.Release(ref, 0, next)
				out.WriteString("granted:")
				for _, e := range granted {
					fmt.Fprintf(&out, " %s #%d", e.RunID, e.Token)
				}
				if !changed {
					out.WriteString(" nothing changes")
				}
			default:
				td.Fatalf(t, "unknown command")
			}
			return out.String() + "\n" + show(&q)
		})
	})
}

func show(q *lockqueue.Queue) string {
	names := func(list []lockqueue.Entry) (s string) {
		for _, e := range list {
			s += " " + e.RunID
			if e.Shared {
				s += "(shared)"
			}
		}
		return s
	}
	return "held by:" + names(q.Holders()) + "; waiting:" + names(q.Waiters()) + "\n"
}

// world is some locks, and runs that want them.
type world struct {
	*rapid.T
	locks map[string]*lockqueue.Queue
	high  map[string]uint64 // the highest token of each lock
	token uint64
	runs  []*runState
	order map[string][]int64 // arrivals that are not served yet
}

// runState is a run: the locks it wants, in order, and how many it holds.
type runState struct {
	ref   int64
	wants []want
	held  int
	asked bool
	done  bool
}

type want struct {
	name   string
	shared bool
}

func (w *world) next() uint64 { w.token++; return w.token }

// TestRunsInAFixedOrderNeverDeadlock: whatever the runs want and however their
// steps interleave, each gets its locks and ends; nobody holds what another has
// for itself; tokens grow; a run is overtaken by nobody but those that share.
func TestRunsInAFixedOrderNeverDeadlock(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{T: rt, locks: map[string]*lockqueue.Queue{}, high: map[string]uint64{}, order: map[string][]int64{}}
		names := []string{"a", "b", "c", "d"}
		for _, n := range names {
			w.locks[n] = &lockqueue.Queue{}
		}
		for i := range rapid.IntRange(1, 8).Draw(rt, "runs") {
			r := &runState{ref: int64(i + 1)}
			for _, n := range names { // in order
				if k := rapid.IntRange(0, 2).Draw(rt, "wants"); k > 0 {
					r.wants = append(r.wants, want{n, k == 2})
				}
			}
			w.runs = append(w.runs, r)
		}
		for step := 0; ; step++ {
			if step > 1000 {
				rt.Fatalf("deadlock")
			}
			var can []*runState
			for _, r := range w.runs {
				if !r.done && (r.held == len(r.wants) || !r.asked) {
					can = append(can, r)
				}
			}
			if len(can) == 0 {
				break
			}
			w.move(rapid.SampledFrom(can).Draw(rt, "who"))
			w.check()
		}
		for _, r := range w.runs {
			if !r.done {
				rt.Fatalf("run %d holds %d of %d locks and waits for ever", r.ref, r.held, len(r.wants))
			}
		}
	})
}

func (w *world) move(r *runState) {
	if r.held == len(r.wants) {
		r.done = true
		for _, l := range r.wants {
			granted, _ := w.locks[l.name].Release(r.ref, 0, w.next)
			for _, e := range granted {
				w.granted(l.name, e.Ref, e.Token, e.Shared)
			}
		}
		return
	}
	l := r.wants[r.held]
	a, token, _ := w.locks[l.name].Ask(lockqueue.Entry{Ref: r.ref, Shared: l.shared}, 100, w.next)
	w.order[l.name] = append(w.order[l.name], r.ref)
	r.asked = true
	if a == lockqueue.Granted {
		w.granted(l.name, r.ref, token, l.shared)
	}
}

func (w *world) granted(name string, ref int64, token uint64, shared bool) {
	r := w.runs[ref-1]
	r.held++
	r.asked = false
	if w.order[name][0] != ref {
		w.Fatalf("lock %s: run %d was served before run %d, which asked earlier", name, ref, w.order[name][0])
	}
	w.order[name] = w.order[name][1:]
	if token < w.high[name] || token == w.high[name] && !shared {
		w.Fatalf("lock %s: token %d after %d", name, token, w.high[name])
	}
	w.high[name] = token
}

// check holds the queues to what must be true of them at any time.
func (w *world) check() {
	for name, q := range w.locks {
		again, err := lockqueue.Decode(q.Append(nil))
		if err != nil {
			w.Fatalf("lock %s: %v", name, err)
		}
		if !slices.Equal(again.Holders(), q.Holders()) || !slices.Equal(again.Waiters(), q.Waiters()) {
			w.Fatalf("lock %s: decodes to another queue", name)
		}
	}
}

func TestCorruptQueuesAreRefused(t *testing.T) {
	next := func() uint64 { return 7 }
	var q lockqueue.Queue
	q.Ask(lockqueue.Entry{Ref: 1, RunID: "one"}, 1, next)
	q.Ask(lockqueue.Entry{Ref: 2, RunID: "two", Asked: -5}, 1, next)
	good := q.Append(nil)
	for n := range good {
		if _, err := lockqueue.Decode(good[:n]); !errors.Is(err, lockqueue.ErrCorrupt) {
			t.Errorf("%d of %d bytes: error is %v", n, len(good), err)
		}
	}
	if _, err := lockqueue.Decode(append(slices.Clone(good), 0)); !errors.Is(err, lockqueue.ErrCorrupt) {
		t.Errorf("a byte too many: error is %v", err)
	}
	again, err := lockqueue.Decode(good)
	if err != nil || !reflect.DeepEqual(*again, q) {
		t.Errorf("decoded %v, error %v", again, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte{1, 1, 3, 1, 4, 4, 9, 1, 'a', 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		q, err := lockqueue.Decode(data)
		if err != nil {
			return
		}
		again, err := lockqueue.Decode(q.Append(nil))
		if err != nil || !reflect.DeepEqual(again, q) {
			t.Fatalf("%v after %v: %v", again, q, err)
		}
	})
}
