package sqlite

import (
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

// Commit implements [store.Store]. Besides the errors that the port names, a
// part fails with store.ErrNotFound when it creates a run of a workflow
// version that is not registered, or appends to a run that does not exist.
func (s *Store) Commit(parts []store.Part) ([]error, error) {
	if len(parts) == 0 {
		return nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(); err != nil {
		return nil, fmt.Errorf("sqlite: committing: %w", err)
	}
	start := time.Now()
	errs, err := s.w.commit(parts)
	if err != nil {
		return nil, fmt.Errorf("sqlite: committing: %w", s.poison(err))
	}
	s.metrics.commit(time.Since(start), parts, errs)
	s.ckpt.committed(parts)
	return errs, nil
}

// commit writes the parts that can be written and tells why of the others. It
// first takes all for good and, when a row turns out to exist, begins again
// and looks before it writes.
func (w *writer) commit(parts []store.Part) (errs []error, err error) {
	errs, err = w.try(parts, false)
	if errors.Is(err, errLook) || isConflict(err) {
		if err := w.abandon(); err != nil {
			return nil, err
		}
		errs, err = w.try(parts, true)
	}
	if err != nil {
		return nil, err
	}
	for _, e := range errs {
		if e != nil {
			return errs, nil //nolint:nilerr // it is that part's
		}
	}
	return nil, nil
}

func (w *writer) try(parts []store.Part, look bool) ([]error, error) {
	if err := w.begin.exec(nil); err != nil {
		return nil, fmt.Errorf("beginning: %w", err)
	}
	errs := make([]error, len(parts))
	written, changed := 0, 0
	// settle writes what has gathered, and what was asked for on rows that exist.
	settle := func(upTo int) error {
		if err := w.flush(); err != nil {
			return err
		}
		for ; changed < upTo; changed++ {
			if errs[changed] == nil {
				if err := w.change(&parts[changed]); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for i := range parts {
		// What is removed and buried must be compared with all that comes before
		// it, and all that follows with it.
		removes := removes(&parts[i])
		if removes {
			if err := settle(i); err != nil {
				return nil, err
			}
		}
		refused, err := w.refuse(&parts[i], look || removes)
		if err != nil {
			return nil, err
		}
		if refused != nil {
			errs[i] = refused
			continue
		}
		if err := w.part(&parts[i]); err != nil {
			return nil, err
		}
		// Later parts are compared with what earlier ones have written.
		if look || removes {
			if err := settle(i + 1); err != nil {
				return nil, err
			}
		}
		written++
	}
	if written == 0 {
		return errs, w.abandon()
	}
	if err := settle(len(parts)); err != nil {
		return nil, err
	}
	if err := w.count(); err != nil {
		return nil, err
	}
	if err := w.end.exec(nil); err != nil {
		return nil, fmt.Errorf("making durable: %w", err)
	}
	w.remember()
	return errs, nil
}

// refuse tells why a part cannot be written, if it cannot. It numbers the
// runs of one that can.
func (w *writer) refuse(p *store.Part, look bool) (refused, err error) {
	w.args = w.args[:0]
	w.args.add(int64(p.Shard))
	var epoch [1]driver.Value
	found, err := w.epoch.row(w.args, epoch[:])
	if err != nil {
		return nil, fmt.Errorf("reading an epoch: %w", err)
	}
	if !found || uint64(epoch[0].(int64)) != p.Epoch {
		return fmt.Errorf("shard %d under epoch %d: %w", p.Shard, p.Epoch, store.ErrStaleEpoch), nil
	}
	for i := range p.Create {
		r := &p.Create[i]
		if _, ok := w.names.number(r.Workflow, r.Version); !ok {
			return fmt.Errorf("workflow %s version %s of run %s: %w", r.Workflow, r.Version, r.ID, store.ErrNotFound), nil
		}
	}
	if refused, err := w.unremovable(p); refused != nil || err != nil {
		return refused, err
	}
	if look {
		if refused, err := w.duplicate(p); refused != nil || err != nil {
			return refused, err
		}
	}
	if refused, err := w.resurrection(p); refused != nil || err != nil {
		return refused, err
	}
	for i := range p.Create {
		w.fresh[p.Create[i].Ref] = w.next
		w.next++
	}
	for i := range p.Append {
		ref := p.Append[i].Ref
		_, found, err := w.numberOf(ref)
		switch {
		case err != nil:
			return nil, err
		case found:
		case !look:
			return nil, errLook
		default:
			for i := range p.Create {
				delete(w.fresh, p.Create[i].Ref)
			}
			return fmt.Errorf("record of run number %d: %w", ref, store.ErrNotFound), nil
		}
	}
	return nil, nil
}

// errLook tells that a part is in doubt.
var errLook = errors.New("a part has to be looked at")

// duplicate tells whether a part has a row that exists, or one twice.
func (w *writer) duplicate(p *store.Part) (refused, err error) {
	type number struct {
		ref int64
		seq uint64
	}
	ids, seen := map[string]bool{}, map[number]bool{}
	for i := range p.Create {
		r := &p.Create[i]
		have, err := w.exists(w.hasRun, r.ID, r.Ref)
		if err != nil {
			return nil, fmt.Errorf("looking for a run: %w", err)
		}
		n := number{ref: r.Ref}
		if have || ids[r.ID] || seen[n] {
			return fmt.Errorf("run %s: %w", r.ID, store.ErrDuplicate), nil
		}
		ids[r.ID], seen[n] = true, true
	}
	for i := range p.Append {
		r := &p.Append[i]
		run, have, err := w.numberOf(r.Ref)
		if err == nil && have {
			have, err = w.exists(w.hasRecord, run, int64(r.Seq))
		}
		if err != nil {
			return nil, fmt.Errorf("looking for a record: %w", err)
		}
		n := number{r.Ref, r.Seq}
		if have || seen[n] {
			return fmt.Errorf("record %d of run number %d: %w", r.Seq, r.Ref, store.ErrDuplicate), nil
		}
		seen[n] = true
	}
	for i := range p.Bury {
		id := p.Bury[i].ID
		have, err := w.taken(p, id)
		if err != nil {
			return nil, fmt.Errorf("looking for an id: %w", err)
		}
		if have || ids[id] {
			return fmt.Errorf("tombstone %s: %w", id, store.ErrDuplicate), nil
		}
		ids[id] = true
	}
	return nil, nil
}

// resurrection tells whether a part creates a run whose id has a tombstone.
func (w *writer) resurrection(p *store.Part) (refused, err error) {
	if !w.buried.Load() {
		return nil, nil
	}
	for i := range p.Create {
		have, err := w.exists(w.hasTombstone, p.Create[i].ID)
		if err != nil {
			return nil, fmt.Errorf("looking for a tombstone: %w", err)
		}
		if have {
			return fmt.Errorf("run %s has a tombstone: %w", p.Create[i].ID, store.ErrDuplicate), nil
		}
	}
	return nil, nil
}

// part inserts a part's new rows.
func (w *writer) part(p *store.Part) error {
	for i := range p.Create {
		if err := w.create(&p.Create[i]); err != nil {
			return fmt.Errorf("inserting runs: %w", err)
		}
	}
	for i := range p.Bury {
		if err := w.tombstone(&p.Bury[i]); err != nil {
			return fmt.Errorf("inserting a tombstone: %w", err)
		}
	}
	for i := range p.Append {
		r := &p.Append[i]
		run, _, err := w.numberOf(r.Ref)
		if err != nil {
			return err
		}
		data := r.Data
		if data == nil {
			data = []byte{}
		}
		if err := w.records.add(run, int64(r.Seq), data); err != nil {
			return fmt.Errorf("inserting records: %w", err)
		}
	}
	return nil
}

func (w *writer) create(r *store.Run) error {
	workflow, _ := w.names.number(r.Workflow, r.Version)
	var key, tags driver.Value
	if r.Key != r.ID {
		key = r.Key
	}
	if len(r.Tags) > 0 {
		b, err := json.Marshal(r.Tags)
		if err != nil {
			return err
		}
		tags = string(b)
	}
	created := r.Created.UnixMilli()
	for name, value := range r.Tags {
		if err := w.tags.add(name, value, created, r.Ref); err != nil {
			return err
		}
	}
	if r.Status.Final() {
		w.ended = append(w.ended, r.Ref)
	}
	w.deltas[countKey{workflow, int64(r.Status)}]++
	return w.runs.add(w.fresh[r.Ref], r.Ref, r.ID, workflow, int64(r.Status), r.Waived, key, r.InputHash[:], tags,
		text(r.RetryOf), created, r.Updated.UnixMilli(), moment(r.Ended), moment(r.Wake), text(r.FailedStep), text(r.Error),
		text(r.Parent), text(r.ParentStep))
}

// flush inserts what has gathered.
func (w *writer) flush() error {
	// One after the other: a failure may have ended the transaction, and no
	// statement may run outside one.
	if err := w.runs.flush(); err != nil {
		return fmt.Errorf("inserting runs: %w", err)
	}
	if err := w.tags.flush(); err != nil {
		return fmt.Errorf("inserting tags: %w", err)
	}
	if err := w.records.flush(); err != nil {
		return fmt.Errorf("inserting records: %w", err)
	}
	return nil
}

// change does what a part asks for on rows that exist by now: it drops the
// records that checkpoints replace and updates runs.
func (w *writer) change(p *store.Part) error {
	for i := range p.Append {
		r := &p.Append[i]
		if r.DropFrom == 0 {
			continue
		}
		run, _, err := w.numberOf(r.Ref)
		if err != nil {
			return err
		}
		w.args = w.args[:0]
		w.args.add(run, int64(r.DropFrom), int64(r.Seq))
		if err := w.dropRecord.exec(w.args); err != nil {
			return fmt.Errorf("dropping records: %w", err)
		}
	}
	for i := range p.Update {
		if err := w.update(&p.Update[i]); err != nil {
			return fmt.Errorf("updating a run: %w", err)
		}
	}
	if err := w.locks(p); err != nil {
		return err
	}
	return w.remove(p)
}

func (w *writer) update(u *store.Update) error {
	run, found, err := w.numberOf(u.Ref)
	if err != nil || !found {
		return err
	}
	w.args = w.args[:0]
	w.args.add(run)
	var was [2]driver.Value
	found, err = w.runStatus.row(w.args, was[:])
	if err != nil || !found {
		return err
	}
	workflow, before, after := was[0].(int64), was[1].(int64), int64(u.Status)
	if before != after {
		w.deltas[countKey{workflow, before}]--
		w.deltas[countKey{workflow, after}]++
	}
	w.args = w.args[:0]
	w.args.add(after, u.Waived, u.Updated.UnixMilli(), moment(u.Ended), moment(u.Wake),
		text(u.FailedStep), text(u.Error), run)
	if u.Status.Final() {
		w.ended = append(w.ended, u.Ref)
	}
	return w.updateRun.exec(w.args)
}

// count adds what the transaction changed to the counts.
func (w *writer) count() error {
	for k, n := range w.deltas {
		if n == 0 {
			continue
		}
		if err := w.counts.add(k.workflow, k.status, n); err != nil {
			return fmt.Errorf("counting: %w", err)
		}
	}
	clear(w.deltas)
	if err := w.counts.flush(); err != nil {
		return fmt.Errorf("counting: %w", err)
	}
	return nil
}

// moment is a time that may be zero, as a column holds it.
func moment(t time.Time) driver.Value {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

// text is a string that may be empty, as a column holds it.
func text(s string) driver.Value {
	if s == "" {
		return nil
	}
	return s
}
