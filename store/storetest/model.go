package storetest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

// Model is the port's meaning in its plainest form: maps, and loops over all
// of them. It is safe for concurrent use and forgets everything at its end.
type Model struct {
	mu        sync.Mutex
	shards    uint32
	epochs    map[uint32]uint64
	owners    map[uint32]string
	runs      map[int64]store.Run
	ids       map[string]int64
	history   map[int64]map[uint64]store.Record
	tombs     map[string]store.Tombstone
	removed   map[uint32]int64 // highest number of a run that was removed, by shard
	workflows []modelWorkflow  // in order of registration
	notes     map[string][]byte
	locks     map[uint32]map[string][]byte // by shard
}

type modelWorkflow struct {
	store.WorkflowInfo
	definition []byte
}

var _ store.Store = (*Model)(nil)

// NewModel makes an empty model.
func NewModel(shards uint32) *Model {
	return &Model{shards: shards, epochs: map[uint32]uint64{}, owners: map[uint32]string{}, runs: map[int64]store.Run{},
		ids: map[string]int64{}, history: map[int64]map[uint64]store.Record{}, notes: map[string][]byte{}, tombs: map[string]store.Tombstone{},
		removed: map[uint32]int64{},
		locks:   map[uint32]map[string][]byte{}}
}

// SetNote implements [store.Store].
func (m *Model) SetNote(_ context.Context, name string, value []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if value == nil {
		delete(m.notes, name)
		return nil
	}
	m.notes[name] = append([]byte{}, value...)
	return nil
}

// Notes implements [store.Store].
func (m *Model) Notes(_ context.Context, prefix string) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string][]byte{}
	for name, v := range m.notes {
		if strings.HasPrefix(name, prefix) {
			out[name] = v
		}
	}
	return out, nil
}

// Note implements [store.Store].
func (m *Model) Note(_ context.Context, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.notes[name], nil
}

// Shards implements [store.Store].
func (m *Model) Shards() uint32 { return m.shards }

// Acquire implements [store.Store].
func (m *Model) Acquire(_ context.Context, shard uint32, owner string) (uint64, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if shard >= m.shards {
		return 0, 0, fmt.Errorf("shard %d of %d", shard, m.shards)
	}
	m.epochs[shard] = max(m.epochs[shard]+1, uint64(time.Now().Unix()))
	m.owners[shard] = owner
	last := max(store.RefBase(shard), m.removed[shard])
	for ref := range m.runs {
		if uint32(ref>>40) == shard {
			last = max(last, ref)
		}
	}
	return m.epochs[shard], last, nil
}

// Owner implements [store.Store].
func (m *Model) Owner(_ context.Context, shard uint32) (string, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.owners[shard], m.epochs[shard], nil
}

// Commit implements [store.Store].
func (m *Model) Commit(parts []store.Part) ([]error, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	errs := make([]error, len(parts))
	failed := false
	for i, p := range parts {
		if errs[i] = m.refuse(p); errs[i] != nil {
			failed = true
			continue
		}
		m.apply(p)
	}
	if !failed {
		return nil, nil
	}
	return errs, nil
}

func (m *Model) refuse(p store.Part) error {
	if e := m.epochs[p.Shard]; e == 0 || e != p.Epoch {
		return store.ErrStaleEpoch
	}
	ids, refs, records := map[string]bool{}, map[int64]bool{}, map[[2]uint64]bool{}
	for _, r := range p.Create {
		if m.workflow(r.Workflow, r.Version) == nil {
			return store.ErrNotFound
		}
	}
	for _, b := range p.Bury {
		if b.Workflow != "" && m.workflow(b.Workflow, b.Version) == nil {
			return store.ErrNotFound
		}
	}
	for _, ref := range p.Remove {
		if r, ok := m.runs[ref]; ok && r.Shard == p.Shard && !r.Status.Final() {
			return store.ErrUnended
		}
	}
	for _, r := range p.Create {
		_, haveID := m.ids[r.ID]
		_, haveRef := m.runs[r.Ref]
		_, buried := m.tombs[r.ID]
		if haveID || haveRef || buried || ids[r.ID] || refs[r.Ref] {
			return store.ErrDuplicate
		}
		ids[r.ID], refs[r.Ref] = true, true
	}
	for _, b := range p.Bury {
		ref, haveID := m.ids[b.ID]
		if haveID && m.runs[ref].Shard == p.Shard && slices.Contains(p.Remove, ref) {
			haveID = false
		}
		_, buried := m.tombs[b.ID]
		if haveID || buried || ids[b.ID] {
			return store.ErrDuplicate
		}
		ids[b.ID] = true
	}
	for _, r := range p.Append {
		n := [2]uint64{uint64(r.Ref), r.Seq}
		if _, have := m.history[r.Ref][r.Seq]; have || records[n] {
			return store.ErrDuplicate
		}
		records[n] = true
	}
	for _, r := range p.Append {
		if _, have := m.runs[r.Ref]; !have && !refs[r.Ref] {
			return store.ErrNotFound
		}
	}
	return nil
}

func (m *Model) apply(p store.Part) {
	for _, r := range p.Create {
		if len(r.Tags) == 0 {
			r.Tags = nil
		}
		r.Tags = maps.Clone(r.Tags)
		m.runs[r.Ref], m.ids[r.ID] = r, r.Ref
	}
	for _, r := range p.Append {
		if m.history[r.Ref] == nil {
			m.history[r.Ref] = map[uint64]store.Record{}
		}
		m.history[r.Ref][r.Seq] = store.Record{Ref: r.Ref, Seq: r.Seq, Data: slices.Clone(r.Data)}
	}
	for _, r := range p.Append {
		for seq := range m.history[r.Ref] {
			if r.DropFrom != 0 && r.DropFrom <= seq && seq < r.Seq {
				delete(m.history[r.Ref], seq)
			}
		}
	}
	for _, u := range p.Update {
		r, ok := m.runs[u.Ref]
		if !ok {
			continue
		}
		r.Status, r.Waived, r.Updated, r.Ended, r.Wake = u.Status, u.Waived, u.Updated, u.Ended, u.Wake
		r.FailedStep, r.Error = u.FailedStep, u.Error
		m.runs[u.Ref] = r
	}
	if m.locks[p.Shard] == nil {
		m.locks[p.Shard] = map[string][]byte{}
	}
	for _, l := range p.Locks {
		if len(l.Data) == 0 {
			delete(m.locks[p.Shard], l.Name)
		} else {
			m.locks[p.Shard][l.Name] = slices.Clone(l.Data)
		}
	}
	for _, ref := range p.Remove {
		if r, ok := m.runs[ref]; ok && r.Shard == p.Shard {
			delete(m.runs, ref)
			delete(m.ids, r.ID)
			delete(m.history, ref)
			m.removed[p.Shard] = max(m.removed[p.Shard], ref)
		}
	}
	for _, b := range p.Bury {
		m.tombs[b.ID] = b
	}
	for _, id := range p.Forget {
		if m.tombs[id].Shard == p.Shard {
			delete(m.tombs, id)
		}
	}
}

// Run implements [store.Store].
func (m *Model) Run(_ context.Context, id string) (store.Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ref, ok := m.ids[id]
	if !ok {
		return store.Run{}, store.ErrNotFound
	}
	return m.runs[ref], nil
}

// RunByRef implements [store.Store].
func (m *Model) RunByRef(_ context.Context, ref int64) (store.Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.runs[ref]
	if !ok {
		return store.Run{}, store.ErrNotFound
	}
	return r, nil
}

// Lookup implements [store.Store].
func (m *Model) Lookup(_ context.Context, ids []string) ([]store.Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sorted(func(r store.Run) bool { return slices.Contains(ids, r.ID) }), nil
}

// Tombstones implements [store.Store].
func (m *Model) Tombstones(_ context.Context, ids []string) ([]store.Tombstone, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []store.Tombstone
	for _, id := range slices.Sorted(maps.Keys(m.tombs)) {
		if slices.Contains(ids, id) {
			out = append(out, m.tombs[id])
		}
	}
	return out, nil
}

// sorted returns the runs that match, in order of their numbers.
func (m *Model) sorted(match func(store.Run) bool) []store.Run {
	var out []store.Run
	for _, ref := range slices.Sorted(maps.Keys(m.runs)) {
		if r := m.runs[ref]; match(r) {
			out = append(out, r)
		}
	}
	return out
}

// History implements [store.Store].
func (m *Model) History(_ context.Context, ref int64) ([]store.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.records(ref), nil
}

func (m *Model) records(ref int64) []store.Record {
	var out []store.Record
	for _, seq := range slices.Sorted(maps.Keys(m.history[ref])) {
		out = append(out, m.history[ref][seq])
	}
	return out
}

// Load implements [store.Store].
func (m *Model) Load(_ context.Context, refs []int64) ([]store.Unfinished, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.whole(m.sorted(func(r store.Run) bool { return slices.Contains(refs, r.Ref) })), nil
}

func (m *Model) whole(runs []store.Run) []store.Unfinished {
	var out []store.Unfinished
	for _, r := range runs {
		out = append(out, store.Unfinished{Run: r, History: m.records(r.Ref)})
	}
	return out
}

// Unfinished implements [store.Store].
func (m *Model) Unfinished(_ context.Context, shard uint32, after int64, wakeBefore time.Time, limit int) ([]store.Unfinished, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	runs := m.sorted(func(r store.Run) bool {
		return r.Shard == shard && !r.Status.Final() && r.Ref > after && !r.Wake.After(wakeBefore)
	})
	return m.whole(runs[:min(max(limit, 0), len(runs))]), nil
}

// Due implements [store.Store].
func (m *Model) Due(_ context.Context, shard uint32, t time.Time, limit int) ([]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	runs := m.sorted(func(r store.Run) bool {
		return r.Shard == shard && !r.Status.Final() && !r.Wake.IsZero() && !r.Wake.After(t)
	})
	slices.SortStableFunc(runs, func(a, b store.Run) int { return a.Wake.Compare(b.Wake) })
	var out []int64
	for _, r := range runs[:min(max(limit, 0), len(runs))] {
		out = append(out, r.Ref)
	}
	return out, nil
}

// Runs implements [store.Store].
func (m *Model) Runs(_ context.Context, shard uint32, after int64, limit int) ([]store.Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	runs := m.sorted(func(r store.Run) bool { return r.Shard == shard && r.Ref > after })
	return runs[:min(max(limit, 0), len(runs))], nil
}

// Ended implements [store.Store].
func (m *Model) Ended(_ context.Context, shard uint32, before time.Time, after store.EndedPlace, limit int) ([]store.Run, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	runs := m.sorted(func(r store.Run) bool {
		return r.Shard == shard && !r.Ended.IsZero() && r.Ended.Before(before) &&
			cmp.Or(r.Ended.Compare(after.Ended), cmp.Compare(r.Ref, after.Ref)) > 0
	})
	slices.SortStableFunc(runs, func(a, b store.Run) int { return a.Ended.Compare(b.Ended) })
	return runs[:min(max(limit, 0), len(runs))], nil
}

// Expired implements [store.Store].
func (m *Model) Expired(_ context.Context, shard uint32, t time.Time, limit int) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var expired []store.Tombstone
	for _, b := range m.tombs {
		if b.Shard == shard && !b.Until.IsZero() && !b.Until.After(t) {
			expired = append(expired, b)
		}
	}
	slices.SortFunc(expired, func(a, b store.Tombstone) int {
		return cmp.Or(a.Until.Compare(b.Until), cmp.Compare(a.ID, b.ID))
	})
	var ids []string
	for _, b := range expired[:min(max(limit, 0), len(expired))] {
		ids = append(ids, b.ID)
	}
	return ids, nil
}

// Buried implements [store.Store].
func (m *Model) Buried(_ context.Context, after string, limit int) ([]store.Tombstone, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []store.Tombstone
	for _, id := range slices.Sorted(maps.Keys(m.tombs)) {
		if id > after && len(out) < limit {
			out = append(out, m.tombs[id])
		}
	}
	return out, nil
}

// Locks implements [store.Store].
func (m *Model) Locks(_ context.Context, shard uint32, after string, limit int) ([]store.Lock, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []store.Lock
	for _, name := range slices.Sorted(maps.Keys(m.locks[shard])) {
		if name > after && len(out) < limit {
			out = append(out, store.Lock{Name: name, Data: slices.Clone(m.locks[shard][name])})
		}
	}
	return out, nil
}

// Lock implements [store.Store].
func (m *Model) Lock(_ context.Context, shard uint32, name string) (store.Lock, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.locks[shard][name]
	if !ok {
		return store.Lock{}, store.ErrNotFound
	}
	return store.Lock{Name: name, Data: slices.Clone(data)}, nil
}

// List implements [store.Store]. Its cursors are the JSON of the last run's
// place.
func (m *Model) List(_ context.Context, f store.Filter) (store.Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	type place struct {
		Created time.Time
		Ref     int64
	}
	older := func(r store.Run, p place) bool {
		return r.Created.Before(p.Created) || r.Created.Equal(p.Created) && r.Ref < p.Ref
	}
	var from *place
	if f.Cursor != "" && json.Unmarshal([]byte(f.Cursor), &from) != nil {
		return store.Page{}, store.ErrBadCursor
	}
	runs := m.sorted(func(r store.Run) bool { return matches(f, r) && (from == nil || older(r, *from)) })
	slices.SortFunc(runs, func(a, b store.Run) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.Ref, a.Ref))
	})
	limit := f.Limit
	if limit <= 0 {
		limit = 50
	}
	limit = min(limit, 1000)
	if len(runs) <= limit {
		return store.Page{Runs: runs}, nil
	}
	last := runs[limit-1]
	next, err := json.Marshal(place{last.Created, last.Ref})
	return store.Page{Runs: runs[:limit], Next: string(next)}, err
}

func matches(f store.Filter, r store.Run) bool {
	value, tagged := r.Tags[f.TagName]
	return (f.Workflow == "" || f.Workflow == r.Workflow) &&
		(len(f.Statuses) == 0 || slices.Contains(f.Statuses, r.Status)) &&
		(f.Key == "" || f.Key == r.Key) &&
		(f.TagName == "" || tagged && (f.TagValue == "" || f.TagValue == value)) &&
		strings.HasPrefix(r.ID, f.IDPrefix) &&
		(f.FailedStep == "" || f.FailedStep == r.FailedStep) &&
		(f.Parent == "" || f.Parent == r.Parent) &&
		(f.Since.IsZero() || !r.Created.Before(f.Since)) &&
		(f.Until.IsZero() || r.Created.Before(f.Until))
}

// Counts implements [store.Store].
func (m *Model) Counts(context.Context) (store.Counts, error) {
	return m.count(func(store.Run) bool { return true }), nil
}

// Unended implements [store.Store].
func (m *Model) Unended(_ context.Context, shard uint32) (store.Counts, error) {
	return m.count(func(r store.Run) bool { return r.Shard == shard && !r.Status.Final() }), nil
}

func (m *Model) count(of func(store.Run) bool) store.Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := store.Counts{}
	for _, r := range m.runs {
		if !of(r) {
			continue
		}
		if out[r.Workflow] == nil {
			out[r.Workflow] = map[store.Status]int64{}
		}
		out[r.Workflow][r.Status]++
	}
	return out
}

func (m *Model) workflow(name, version string) *modelWorkflow {
	for i := range m.workflows {
		if w := &m.workflows[i]; w.Name == name && (w.Version == version || version == "" && w.Active) {
			return w
		}
	}
	return nil
}

// activate makes one version the only active one of its name.
func (m *Model) activate(name, version string) {
	for i := range m.workflows {
		if w := &m.workflows[i]; w.Name == name {
			w.Active = w.Version == version
		}
	}
}

// PutWorkflow implements [store.Store].
func (m *Model) PutWorkflow(_ context.Context, info store.WorkflowInfo, definition []byte) (store.WorkflowInfo, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if info.Version == "" || info.Name == "" {
		return store.WorkflowInfo{}, false, errors.New("a workflow needs a name and a version")
	}
	if w := m.workflow(info.Name, info.Version); w != nil {
		return w.WorkflowInfo, false, nil
	}
	m.workflows = append(m.workflows, modelWorkflow{info, slices.Clone(definition)})
	m.activate(info.Name, info.Version)
	return m.workflow(info.Name, info.Version).WorkflowInfo, true, nil
}

// ActivateWorkflow implements [store.Store].
func (m *Model) ActivateWorkflow(_ context.Context, name, version string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if version == "" || m.workflow(name, version) == nil {
		return store.ErrNotFound
	}
	m.activate(name, version)
	return nil
}

// Workflow implements [store.Store].
func (m *Model) Workflow(_ context.Context, name, version string) (store.WorkflowInfo, []byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.workflow(name, version)
	if w == nil {
		return store.WorkflowInfo{}, nil, store.ErrNotFound
	}
	return w.WorkflowInfo, slices.Clone(w.definition), nil
}

// Workflows implements [store.Store].
func (m *Model) Workflows(context.Context) ([]store.WorkflowInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []store.WorkflowInfo
	for _, w := range slices.Backward(m.workflows) {
		out = append(out, w.WorkflowInfo)
	}
	slices.SortStableFunc(out, func(a, b store.WorkflowInfo) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Check implements [store.Store].
func (m *Model) Check(context.Context) error { return nil }

// Close implements [store.Store].
func (m *Model) Close() error { return nil }
