package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/archive"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
)

// guarded holds a lock while it waits for a signal.
func guarded() *definitions.Workflow {
	b := definitions.Saga("guarded").Service("shop").Lock("'shelf'")
	b.Step("reserve").Action("create").Compensation("uncreate")
	b.Step("approve").WaitSignal("approval")
	b.Step("deliver").Action("deliver").Pivot()
	return b.MustBuild()
}

// export returns the file of all that the world's store has.
func (w *world) export(f archive.Filter) []byte {
	w.t.Helper()
	var b bytes.Buffer
	x := archive.Exporter{Store: w.store, Filter: f}
	if _, err := archive.Export(context.Background(), x.Page, "test", &b, nil); err != nil {
		w.t.Fatal(err)
	}
	return b.Bytes()
}

// content is all runs of a store, without where they are, and their histories.
func content(t *testing.T, s store.Store) []string {
	t.Helper()
	var out []string
	for f := (store.Filter{Limit: 10}); ; {
		page, err := s.List(context.Background(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Runs {
			h, err := s.History(context.Background(), r.Ref)
			if err != nil {
				t.Fatal(err)
			}
			r.Ref, r.Shard = 0, 0
			text := fmt.Sprintf("%+v", r)
			for _, rec := range h {
				text += fmt.Sprintf("\n%d %x", rec.Seq, rec.Data)
			}
			out = append(out, text)
		}
		if f.Cursor = page.Next; f.Cursor == "" {
			slices.Sort(out) // runs of the same millisecond have no order of their own
			return out
		}
	}
}

// reopen has the world go on with another database file.
func (w *world) reopen(shards uint32, fill func(store.Store)) {
	w.t.Helper()
	w.dir = w.t.TempDir()
	st, err := sqlite.Open(context.Background(), sqlite.Config{Path: filepath.Join(w.dir, "ringmaster.db"), Shards: shards})
	if err != nil {
		w.t.Fatal(err)
	}
	fill(st)
	if err := st.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// TestRunsGoOnInAnotherStore exports a store with runs of all kinds, imports it
// into an empty one, and has them go on there.
func TestRunsGoOnInAnotherStore(t *testing.T) {
	w, l := newWorld(t, nil), newLedger()
	w.start()
	ctx := context.Background()
	for _, wf := range []*definitions.Workflow{order(), guarded(), purchase(), settlement(), booking()} {
		w.register(wf)
	}
	h := shop(l)
	for name, f := range bank(l) {
		h[name] = f
	}
	for name, f := range bookingHandlers(l) {
		h[name] = f
	}
	h["uncreate"] = decline("closed")
	h["pay"] = func(ctx context.Context, in []byte) ([]byte, error) {
		if bytes.Contains(in, []byte("13")) {
			return decline("no_cover")(ctx, in)
		}
		return ok(l, `{"amount":12}`)(ctx, in)
	}
	w.worker("a", h)
	for i := range 5 {
		w.wait(w.run(rest.Start{Workflow: "order", ID: fmt.Sprint("done-", i), Input: orderInput, Tags: map[string]string{"region": "eu"}}), "succeeded")
	}
	w.wait(w.run(rest.Start{Workflow: "purchase", ID: "parent", Input: orderInput}), "succeeded")
	w.wait(w.run(rest.Start{Workflow: "booking", ID: "booked"}), "committed")
	w.wait(w.run(rest.Start{Workflow: "order", ID: "stuck", Input: []byte(`{"total": 13}`)}), "stalled")
	w.run(rest.Start{Workflow: "guarded", ID: "waits"})
	w.eventually("the run waits for its signal", func() bool {
		r, err := w.store.Run(ctx, "waits")
		return err == nil && !r.Wake.IsZero()
	})
	if d := w.decision("never-there"); d != "aborted" {
		t.Fatalf("the decision is %s", d)
	}
	before, file := content(t, w.store), w.export(archive.Filter{All: true})
	if n := bytes.Count(w.export(archive.Filter{}), []byte(`{"run":`)); n != 8 {
		t.Errorf("without All, %d runs are exported, not the 8 that have ended", n)
	}
	w.stop()

	w.reopen(4, func(s store.Store) {
		for again := range 2 {
			report, err := archive.Import(ctx, archive.ImportConfig{Store: s}, bytes.NewReader(file))
			if err != nil {
				t.Fatal(err)
			}
			want := archive.Report{Workflows: 5, Runs: 10, Unended: 2, Tombstones: 1}
			if again == 1 {
				want = archive.Report{Left: 16}
			}
			if report != want {
				t.Errorf("the report is %+v, want %+v", report, want)
			}
		}
		if after := content(t, s); !slices.Equal(after, before) {
			t.Errorf("S12: the store has\n%s\nwant\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
		}
	})
	e := w.start()
	if started, err := e.StartRun(ctx, rest.Start{Workflow: "order", ID: "done-1", Input: orderInput}); err != nil || started.Created {
		t.Errorf("S10: a repeated start is answered with %+v, %v", started, err)
	}
	_, err := e.StartRun(ctx, rest.Start{Workflow: "booking", ID: "never-there"})
	isError(t, err, engine.KindConflict, "presumed_aborted")
	w.run(rest.Start{Workflow: "guarded", ID: "second"})
	w.eventually("the second waits for the lock", func() bool {
		page, err := e.Locks(ctx, rest.LockFilter{})
		return err == nil && len(page.Locks) == 1 && page.Locks[0].Holders[0].Run == "waits" && page.Locks[0].WaitingCount == 1
	})
	for _, id := range []string{"waits", "second"} {
		if _, err := e.Signal(ctx, id, "approval", rest.Signal{}); err != nil {
			t.Fatal(err)
		}
		w.wait(id, "succeeded")
	}
	if _, err := e.Skip(ctx, "stuck", rest.Settle{Reason: "looked it up"}); err != nil {
		t.Fatal(err)
	}
	if d := w.wait("stuck", "compensated"); !d.Waived {
		t.Error("the stalled run is not marked as waived")
	}
	for _, id := range []string{"waits/reserve/action/1", "done-1/pay/action/1"} {
		if n := l.count(id); n != 1 {
			t.Errorf("S5: the effect of %s happened %d times", id, n)
		}
	}
}

// TestArchivedRunsComeBack has a daemon archive what it removes, and imports that.
func TestArchivedRunsComeBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "archive")
	var d *archive.Dir
	archiving := true
	w, l := newWorld(t, func(cfg *engine.Config) {
		if archiving {
			cfg.Retain = time.Nanosecond
			cfg.Archive = func(ctx context.Context, runs []store.Unfinished) error { return d.Add(ctx, runs) }
		}
	}), newLedger()
	var err error
	if d, err = archive.OpenDir(archive.DirConfig{Path: dir, Store: definitionsOf{w: w}, Node: "a/b"}); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.register(order())
	w.worker("a", shop(l))
	for i := range 4 {
		w.gone(w.run(rest.Start{Workflow: "order", ID: fmt.Sprint("o-", i), Input: orderInput}))
	}
	archiving = false
	w.stop()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	e := w.start()
	_, err = e.Run(context.Background(), "o-1")
	isError(t, err, engine.KindGone, engine.CodeRemoved)
	w.stop()
	w.restore(dir, archive.Report{Runs: 4, Restored: 4, Left: 1})
	w.restore(dir, archive.Report{Left: 5})
	w.start()
	for i := range 4 {
		r := w.wait(fmt.Sprint("o-", i), "succeeded")
		if r.Removed != nil || len(r.Steps) != 3 {
			t.Errorf("the run is %+v", r)
		}
	}
}

// definitionsOf is the store that a world has at the time.
type definitionsOf struct {
	store.Store
	w *world
}

func (d definitionsOf) Workflow(ctx context.Context, name, version string) (store.WorkflowInfo, []byte, error) {
	return d.w.store.Workflow(ctx, name, version)
}

// restore imports the files of an archive into the world's store.
func (w *world) restore(dir string, want archive.Report) {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(files) != 1 {
		w.t.Fatalf("the archive has %v, %v", files, err)
	}
	st, err := sqlite.Open(context.Background(), sqlite.Config{Path: filepath.Join(w.dir, "ringmaster.db")})
	if err != nil {
		w.t.Fatal(err)
	}
	in, err := os.Open(files[0])
	if err != nil {
		w.t.Fatal(err)
	}
	defer in.Close()
	report, err := archive.Import(context.Background(), archive.ImportConfig{Store: st}, in)
	if err = errors.Join(err, st.Close()); err != nil || report != want {
		w.t.Errorf("the report is %+v, %v, want %+v", report, err, want)
	}
}
