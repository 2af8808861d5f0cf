package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/archive"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/storetest"
)

// note is a workflow of one step, under a lock.
func note() *definitions.Workflow {
	b := definitions.Saga("note").Service("desk").Lock("'desk'")
	b.Step("write").Action("write").NoCompensation("it is only a note")
	return b.MustBuild()
}

var began = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// runOf makes a run, which has got its lock, and has ended if told to.
func runOf(t testing.TB, id string, input []byte, end bool) store.Unfinished {
	t.Helper()
	return childOf(t, machine.Parent{}, id, input, end)
}

func childOf(t testing.TB, parent machine.Parent, id string, input []byte, end bool) store.Unfinished {
	t.Helper()
	s, u := machine.NewState(note()), store.Unfinished{}
	inputs := []machine.Input{machine.Start{RunID: id, Input: input, Parent: parent}, machine.Granted{Lock: "desk", Token: 7}}
	if end {
		inputs = append(inputs, machine.Result{Phase: machine.Action, Generation: 1, Attempt: 1, Outcome: machine.OutcomeSucceeded, Output: []byte("1")})
	}
	for i, in := range inputs {
		events, err := s.Step(in, began.Add(time.Duration(i)*time.Second))
		if err != nil || len(events) == 0 {
			t.Fatalf("step %d of run %s: %d events, %v", i, id, len(events), err)
		}
		u.History = append(u.History, store.Record{Seq: events[0].Seq, Data: machine.AppendEvents(nil, events)})
	}
	u.Run = store.Run{
		ID: id, Workflow: "note", Version: note().Version(), Status: store.Status(s.Status()), Key: s.RoutingKey(),
		InputHash: [16]byte{byte(len(input))}, Created: began, Updated: began.Add(2 * time.Second), Tags: map[string]string{"of": id},
		Parent: parent.RunID, ParentStep: parent.Step,
	}
	if end {
		u.Run.Ended = u.Run.Updated
	}
	return u
}

// filled is a store with runs.
func filled(t testing.TB, shards uint32, runs ...store.Unfinished) store.Store {
	t.Helper()
	s := storetest.NewModel(shards)
	ctx := context.Background()
	wf := note()
	if _, _, err := s.PutWorkflow(ctx, store.WorkflowInfo{Name: "note", Version: wf.Version(), Kind: "saga", Registered: began}, wf.JSON()); err != nil {
		t.Fatal(err)
	}
	put(t, s, runs...)
	return s
}

func put(t testing.TB, s store.Store, runs ...store.Unfinished) {
	t.Helper()
	parts, last := map[uint32]*store.Part{}, map[uint32]int64{}
	for _, u := range runs {
		shard := store.ShardOf(u.Run.ID, s.Shards())
		if parts[shard] == nil {
			epoch, ref, err := s.Acquire(context.Background(), shard, "test")
			if err != nil {
				t.Fatal(err)
			}
			parts[shard], last[shard] = &store.Part{Shard: shard, Epoch: epoch}, ref
		}
		last[shard]++
		u.Run.Shard, u.Run.Ref = shard, last[shard]
		parts[shard].Create = append(parts[shard].Create, u.Run)
		for _, r := range u.History {
			r.Ref = u.Run.Ref
			parts[shard].Append = append(parts[shard].Append, r)
		}
	}
	for _, p := range parts {
		if errs, err := s.Commit([]store.Part{*p}); err != nil || errs != nil {
			t.Fatal(errs, err)
		}
	}
}

func export(t testing.TB, s store.Store, f archive.Filter) string {
	t.Helper()
	var b bytes.Buffer
	x := archive.Exporter{Store: s, Filter: f}
	if _, err := archive.Export(context.Background(), x.Page, "test", &b, nil); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// importAll imports a file and returns what was reported, and the conflicts.
func importAll(s store.Store, file string) (archive.Report, []string, error) {
	var conflicts []string
	r, err := archive.Import(context.Background(), archive.ImportConfig{Store: s, Conflict: func(c archive.Conflict) {
		conflicts = append(conflicts, fmt.Sprintf("%d %s %s", c.Line, c.ID, c.Why))
	}}, strings.NewReader(file))
	return r, conflicts, err
}

// lines are those of a file but its header and end, sorted.
func lines(file string) []string {
	all := strings.Split(strings.TrimSpace(file), "\n")
	all = all[1 : len(all)-1]
	slices.Sort(all)
	return all
}

func TestAnExportIsTheSameAfterAnImportIntoOtherShards(t *testing.T) {
	var runs []store.Unfinished
	for i := range 700 { // several pages and batches
		runs = append(runs, runOf(t, fmt.Sprint("n-", i), []byte(fmt.Sprint(i)), i != 350))
	}
	file := export(t, filled(t, 3, runs...), archive.Filter{All: true})
	for _, shards := range []uint32{1, 3, 16} {
		to := storetest.NewModel(shards)
		r, conflicts, err := importAll(to, file)
		if want := (archive.Report{Workflows: 1, Runs: 700, Unended: 1}); r != want || err != nil {
			t.Fatalf("%d shards: %+v, %v, %v", shards, r, conflicts, err)
		}
		if got, want := lines(export(t, to, archive.Filter{All: true})), lines(file); !slices.Equal(got, want) {
			t.Errorf("%d shards: what is exported again differs", shards)
		}
		row, err := to.Lock(context.Background(), store.ShardOf("desk", shards), "desk")
		if err != nil || len(row.Data) == 0 {
			t.Errorf("the lock of the run that has not ended: %v, %v", row, err)
		}
		for shard := range shards {
			rows, err := to.Runs(context.Background(), shard, 0, 1000)
			if err != nil {
				t.Fatal(err)
			}
			for i, row := range rows {
				if row.Ref != store.RefBase(shard)+int64(i)+1 || store.ShardOf(row.ID, shards) != shard {
					t.Fatalf("run %s has number %d in shard %d", row.ID, row.Ref, shard)
				}
			}
		}
	}
}

func TestFiltersSelectWhatIsExported(t *testing.T) {
	late := runOf(t, "late", nil, true)
	late.Run.Created = began.Add(time.Hour)
	s := filled(t, 3, runOf(t, "early", nil, true), late, runOf(t, "open", nil, false))
	for want, f := range map[string]archive.Filter{
		"early late":      {},
		"early late open": {All: true},
		"late":            {Since: began.Add(time.Minute)},
		"early":           {Until: began.Add(time.Minute), Workflow: "note"},
		"":                {Workflow: "other"},
		"open":            {All: true, Statuses: []store.Status{store.StatusRunning}},
	} {
		var ids []string
		err := archive.Each(context.Background(), strings.NewReader(export(t, s, f)), 0, func(l *archive.Line, _ int) error {
			if l.Run != nil {
				ids = append(ids, l.Run.ID)
			}
			return nil
		})
		slices.Sort(ids)
		if got := strings.Join(ids, " "); got != want || err != nil {
			t.Errorf("%+v selects %q, %v, want %q", f, got, err, want)
		}
	}
}

func TestWhatContradictsIsLeftOutAndReported(t *testing.T) {
	file := export(t, filled(t, 2, runOf(t, "a", []byte("1"), true), runOf(t, "b", []byte("1"), true), runOf(t, "c", []byte("1"), false)),
		archive.Filter{All: true})
	to := filled(t, 2, runOf(t, "a", []byte("12"), true), runOf(t, "b", []byte("1"), false))
	put(t, to, runOf(t, "holder", nil, false))
	if _, _, err := importAll(to, export(t, filled(t, 2, runOf(t, "holder2", nil, false)), archive.Filter{All: true})); err != nil {
		t.Fatal(err)
	}
	r, conflicts, err := importAll(to, file)
	slices.Sort(conflicts)
	got := strings.Join(conflicts, "\n")
	for _, want := range []string{
		"a another run with this id is there", "b the run is there, and has come to another point", `c it holds lock "desk", which is held by run "holder2" here`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the conflicts are\n%s\nwithout %q", got, want)
		}
	}
	if r.Conflicts != 3 || r.Runs != 0 || err != nil {
		t.Errorf("the report is %+v, %v", r, err)
	}
}

func TestShardsThatAreOwnedAreLeftAlone(t *testing.T) {
	file := export(t, filled(t, 2, runOf(t, "a", nil, true)), archive.Filter{})
	owned := errors.New("orchestrator o-1 owns it")
	to := storetest.NewModel(2)
	_, err := archive.Import(context.Background(), archive.ImportConfig{Store: to, Own: func(context.Context, uint32) error { return owned }}, strings.NewReader(file))
	if !errors.Is(err, owned) {
		t.Errorf("the error is %v", err)
	}
	if owner, _, _ := to.Owner(context.Background(), store.ShardOf("a", 2)); owner != "" {
		t.Errorf("the shard was taken by %s", owner)
	}
}

func TestRemovalFollowsTheFile(t *testing.T) {
	ctx := context.Background()
	child := childOf(t, machine.Parent{RunID: "open", Step: "write", Depth: 1}, "child", nil, true)
	s := filled(t, 2, runOf(t, "a", nil, true), runOf(t, "open", nil, false), child)
	file := export(t, s, archive.Filter{All: true})
	put(t, s, runOf(t, "not in the file", nil, true))
	for want := range 2 {
		n, err := archive.Remove(ctx, s, strings.NewReader(file), began.AddDate(1, 0, 0), nil)
		if n != 1-want || err != nil {
			t.Errorf("%d were removed, %v", n, err)
		}
	}
	for id, gone := range map[string]bool{"a": true, "open": false, "child": false, "not in the file": false} {
		if _, err := s.Run(ctx, id); errors.Is(err, store.ErrNotFound) != gone {
			t.Errorf("run %s: %v", id, err)
		}
	}
	tombs, err := s.Tombstones(ctx, []string{"a"})
	if err != nil || len(tombs) != 1 || tombs[0].Status != store.StatusSucceeded || !tombs[0].Until.Equal(began.AddDate(1, 0, 0)) {
		t.Errorf("the tombstone is %+v, %v", tombs, err)
	}
	file = export(t, s, archive.Filter{})
	to := storetest.NewModel(5)
	if r, _, err := importAll(to, file); err != nil || r.Tombstones != 1 {
		t.Errorf("the tombstone is imported with %+v, %v", r, err)
	}
}

// An export must not hold what it has written.
func TestAnExportOfManyRunsNeedsLittleMemory(t *testing.T) {
	const runs, each = 10_000, 4 << 10
	u := runOf(t, "n", nil, true)
	u.History[0].Data = bytes.Repeat([]byte{1}, each)
	many := &manyRuns{Model: storetest.NewModel(1), run: u, n: runs}
	base, peak := heap(), uint64(0)
	x := archive.Exporter{Store: many}
	out := &meter{each: func() { peak = max(peak, heap()) }}
	n, err := archive.Export(context.Background(), x.Page, "test", out, nil)
	if err != nil || n.Runs != runs || out.bytes < runs*each {
		t.Fatalf("%+v in %d bytes, %v", n, out.bytes, err)
	}
	if peak > base && peak-base > 24<<20 {
		t.Errorf("%d MB were written, and %d MB held", out.bytes>>20, (peak-base)>>20)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

type meter struct {
	bytes, lines int
	each         func()
}

func (m *meter) Write(b []byte) (int, error) {
	m.bytes += len(b)
	if m.lines++; m.lines%1000 == 0 {
		m.each()
	}
	return len(b), nil
}

// manyRuns is a store that makes up the same run again and again.
type manyRuns struct {
	*storetest.Model
	run store.Unfinished
	n   int64
}

func (m *manyRuns) Runs(_ context.Context, _ uint32, after int64, limit int) (rows []store.Run, err error) {
	for ref := after + 1; ref <= m.n && len(rows) < limit; ref++ {
		r := m.run.Run
		r.Ref, r.ID = ref, fmt.Sprint("n-", ref)
		rows = append(rows, r)
	}
	return rows, nil
}

func (m *manyRuns) Load(_ context.Context, refs []int64) (out []store.Unfinished, err error) {
	for _, ref := range refs {
		u := m.run
		u.Run.Ref, u.Run.ID = ref, fmt.Sprint("n-", ref)
		u.History = slices.Clone(u.History)
		out = append(out, u)
	}
	return out, nil
}

func TestAnArchiveBeginsNewFilesAndSurvivesTornLines(t *testing.T) {
	ctx, now := context.Background(), began
	path := filepath.Join(t.TempDir(), "a", "b")
	s := filled(t, 1)
	d, err := archive.OpenDir(archive.DirConfig{Path: path, Store: s, Node: "x-1", FileBytes: 2000, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		if i == 5 {
			now = now.AddDate(0, 0, 1)
		}
		if err := d.Add(ctx, []store.Unfinished{runOf(t, fmt.Sprint("n-", i), nil, true)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(path, "runs-2026*-x_1-*.jsonl"))
	if err != nil || len(files) < 3 {
		t.Fatalf("the files are %v, %v", files, err)
	}
	slices.Sort(files)
	last, err := os.OpenFile(files[0], os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = last.WriteString(`{"run":{"id":"torn`)
	}
	if err = errors.Join(err, last.Close()); err != nil {
		t.Fatal(err)
	}
	to, total := storetest.NewModel(4), 0
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		r, _, err := importAll(to, string(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		total += r.Runs
	}
	if total != 6 {
		t.Errorf("%d runs are in the archive, not 6", total)
	}
	if _, err := archive.OpenDir(archive.DirConfig{Path: files[0], Store: s}); err == nil {
		t.Error("a file was taken for a folder")
	}
}

func TestAFileIsThereOnlyWhenItIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "runs.jsonl")
	write := func(text string, err error) error {
		return archive.WriteFile(path, func(w io.Writer) error {
			_, _ = io.WriteString(w, text)
			return err
		})
	}
	if err := write("old", nil); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("failed")
	if err := write("half", failed); !errors.Is(err, failed) {
		t.Errorf("the error is %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "old" {
		t.Errorf("the file has %q, %v", text, err)
	}
	if left, _ := filepath.Glob(path + "*"); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}
