package sqlite_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
)

// load makes the rows of three-step sagas under way: each is created with its
// first record, appends two more in later commits and a fourth with the update
// that ends it. A run's id has 36 bytes, a record about 60.
type load struct {
	s      *sqlite.Store
	epochs []uint64
	next   []int64
	live   []saga // oldest first
	clock  time.Time
	data   []byte
	turn   int
	limit  int // sagas in flight
}

type saga struct {
	ref int64
	seq uint64
}

const (
	loadShards = 16
	// underWay is the usual number of sagas in flight.
	underWay = 2000
)

func newLoad(t testing.TB, path string) *load {
	t.Helper()
	s, err := open(context.Background(), path, loadShards)
	if err != nil {
		t.Fatal(err)
	}
	return loadOn(t, s)
}

// loadOn begins a load on a store and closes that at the end.
func loadOn(t testing.TB, s *sqlite.Store) *load {
	t.Helper()
	ctx := context.Background()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	l := &load{s: s, limit: underWay, clock: time.Now(), data: bytes.Repeat([]byte("event "), 10)}
	if _, _, err := s.PutWorkflow(ctx, store.WorkflowInfo{Name: "order", Version: "1"}, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	for shard := range uint32(loadShards) {
		epoch, last, err := s.Acquire(ctx, shard, "load")
		if err != nil {
			t.Fatal(err)
		}
		l.epochs, l.next = append(l.epochs, epoch), append(l.next, last)
	}
	return l
}

// rows makes the parts of a commit of n rows.
func (l *load) rows(n int) []store.Part {
	parts := make([]store.Part, loadShards)
	for i := range parts {
		parts[i] = store.Part{Shard: uint32(i), Epoch: l.epochs[i]}
	}
	for n > 0 {
		switch {
		case len(l.live) < l.limit:
			n -= l.start(parts)
		case len(l.live) > 0:
			n -= l.advance(parts)
		default:
			n = 0
		}
	}
	return slices.DeleteFunc(parts, func(p store.Part) bool { return len(p.Append) == 0 })
}

func (l *load) start(parts []store.Part) int {
	l.turn++
	p := &parts[l.turn%loadShards]
	l.next[p.Shard]++
	l.clock = l.clock.Add(50 * time.Microsecond)
	id := uuid.Must(uuid.NewV7()).String()
	r := store.Run{Ref: l.next[p.Shard], ID: id, Shard: p.Shard, Workflow: "order", Version: "1",
		Status: store.StatusRunning, Key: id, Created: l.clock, Updated: l.clock}
	p.Create = append(p.Create, r)
	p.Append = append(p.Append, store.Record{Ref: r.Ref, Seq: 1, Data: l.data})
	l.live = append(l.live, saga{r.Ref, 1})
	return 2
}

func (l *load) advance(parts []store.Part) int {
	sg := l.live[0]
	l.live = l.live[1:]
	sg.seq += 3
	p := &parts[sg.ref>>40]
	p.Append = append(p.Append, store.Record{Ref: sg.ref, Seq: sg.seq, Data: l.data})
	if sg.seq < 10 {
		l.live = append(l.live, sg)
		return 1
	}
	p.Update = append(p.Update, store.Update{Ref: sg.ref, Status: store.StatusSucceeded, Updated: l.clock, Ended: l.clock})
	return 2
}

func (l *load) commit(t testing.TB, parts []store.Part) {
	errs, err := l.s.Commit(parts)
	if err != nil || errs != nil {
		t.Fatal(err, errs)
	}
}

func BenchmarkCommit(b *testing.B) {
	for _, n := range []int{1, 10, 100, 200, 1000} {
		b.Run(fmt.Sprintf("rows=%d", n), func(b *testing.B) {
			l := newLoad(b, filepath.Join(b.TempDir(), "store.db"))
			for range 10 + 8000/n {
				l.commit(b, l.rows(n)) // until sagas end at the pace at which they start
			}
			var took []time.Duration
			rows := 0
			cpu, written := cpuTime(b), writtenBytes(b)
			for b.Loop() {
				parts := l.rows(n)
				for _, p := range parts {
					rows += len(p.Create) + len(p.Append) + len(p.Update)
				}
				start := time.Now()
				l.commit(b, parts)
				took = append(took, time.Since(start))
			}
			b.ReportMetric(float64((cpuTime(b)-cpu).Nanoseconds())/float64(rows)/1000, "cpu-µs/row")
			b.ReportMetric(float64(writtenBytes(b)-written)/float64(rows), "written-B/row")
			slices.Sort(took)
			var total time.Duration
			for _, d := range took {
				total += d
			}
			b.ReportMetric(float64(rows)/total.Seconds(), "rows/s")
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
		})
	}
}

func BenchmarkUnfinished(b *testing.B) {
	l := newLoad(b, filepath.Join(b.TempDir(), "store.db"))
	const runs = 100_000
	for range runs / loadShards / 100 {
		parts := make([]store.Part, loadShards)
		for i := range parts {
			parts[i] = store.Part{Shard: uint32(i), Epoch: l.epochs[i]}
		}
		for range 100 * loadShards {
			l.start(parts)
		}
		for i := range parts {
			for _, r := range parts[i].Create {
				for seq := range uint64(3) {
					parts[i].Append = append(parts[i].Append, store.Record{Ref: r.Ref, Seq: 2 + seq, Data: l.data})
				}
			}
		}
		l.commit(b, parts)
	}
	for b.Loop() {
		n := 0
		for shard := range uint32(loadShards) {
			for after := int64(0); ; {
				page, err := l.s.Unfinished(context.Background(), shard, after, l.clock, 1000)
				if err != nil {
					b.Fatal(err)
				}
				n += len(page)
				if len(page) < 1000 {
					break
				}
				after = page[len(page)-1].Run.Ref
			}
		}
		b.ReportMetric(float64(n), "runs")
	}
}

// cpuTime is what the process has used so far. Beside the time that a commit
// took it tells how much of that was waiting, for the disk or for a turn.
func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// writtenBytes is what the process has written so far, where the system tells.
func writtenBytes(t testing.TB) int64 {
	f, err := os.Open("/proc/self/io")
	if err != nil {
		return 0
	}
	defer f.Close()
	var read, written int64
	if _, err := fmt.Fscanf(f, "rchar: %d\nwchar: %d\n", &read, &written); err != nil {
		t.Fatal(err)
	}
	return written
}
