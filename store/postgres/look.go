package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ringmaster-dev/ringmaster/store"
)

// errSuperseded: another connection has taken over from this one.
var errSuperseded = errors.New("another connection commits for this store")

// carefully looks at every part before it writes those that can be written, and
// tells why of the others.
func (w *writer) carefully(ctx context.Context, parts []store.Part) (errs []error, err error) {
	tx, err := w.native.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return nil, fmt.Errorf("beginning: %w", err)
	}
	tag, err := tx.Exec(ctx, "UPDATE writers SET batch = $3, used = $4 WHERE writer = $1 AND generation = $2",
		w.id, w.generation, w.number, time.Now().UnixMilli())
	if err == nil && tag.RowsAffected() != 1 {
		err = errSuperseded
	}
	if err != nil {
		return nil, err
	}
	have, err := look(ctx, tx, parts)
	if err != nil {
		return nil, err
	}
	errs = make([]error, len(parts))
	var good []store.Part
	removes := false
	for i := range parts {
		if errs[i] = have.refuse(&parts[i], w.names); errs[i] != nil {
			continue
		}
		have.add(&parts[i])
		good = append(good, parts[i])
		removes = removes || len(parts[i].Remove)+len(parts[i].Bury)+len(parts[i].Forget) > 0
	}
	step := max(len(good), 1)
	if removes {
		step = 1 // what one removes or buries, the next may go by
	}
	for some := range slices.Chunk(good, step) {
		if err := w.write(ctx, some); err != nil {
			return nil, fmt.Errorf("writing what had been looked at: %w", err)
		}
	}
	if len(good) == len(parts) {
		errs = nil
	}
	w.errs = errs // for whoever finds this commit written
	if err := tx.Commit(ctx); err != nil {
		return nil, fmt.Errorf("making durable: %w", err)
	}
	return errs, nil
}

// write sends the rows of parts within a transaction.
func (w *writer) write(ctx context.Context, parts []store.Part) error {
	if err := w.batch.fill(parts, w.names.must); err != nil {
		return err
	}
	p := w.native.PgConn().StartPipeline(ctx)
	n := w.batch.send(p, w.bucket)
	if err := p.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sending: %w", err), p.Close())
	}
	return finish(p, n)
}

// crossed tells whether a part has records of a run that another one, or the
// same, removes. Statements of a commit insert first and remove after that.
func crossed(parts []store.Part) bool {
	var removed map[int64]bool
	for i := range parts {
		for _, ref := range parts[i].Remove {
			if removed == nil {
				removed = map[int64]bool{}
			}
			removed[ref] = true
		}
		if removed == nil {
			continue
		}
		for j := range parts[i].Append {
			if removed[parts[i].Append[j].Ref] {
				return true
			}
		}
	}
	return false
}

// number is that of a record.
type number struct {
	ref int64
	seq uint64
}

// there is what the database holds of all that parts speak of.
type there struct {
	epochs  map[uint32]uint64
	runs    map[int64]known
	ids     map[string]int64  // numbers of runs
	tombs   map[string]uint32 // shards of tombstones
	records map[number]bool
}

// known is what is known of one run.
type known struct {
	id     string
	status store.Status
}

// look reads, and holds, what is there.
func look(ctx context.Context, tx pgx.Tx, parts []store.Part) (*there, error) {
	h := &there{epochs: map[uint32]uint64{}, runs: map[int64]known{}, ids: map[string]int64{}, tombs: map[string]uint32{}, records: map[number]bool{}}
	var shards []int32
	var ids []string
	var refs, recordRefs, seqs []int64
	for i := range parts {
		p := &parts[i]
		shards = append(shards, int32(p.Shard))
		refs = append(refs, p.Remove...)
		for _, id := range p.Forget {
			ids = append(ids, clean(id))
		}
		for j := range p.Create {
			ids, refs = append(ids, clean(p.Create[j].ID)), append(refs, p.Create[j].Ref)
		}
		for j := range p.Bury {
			ids = append(ids, clean(p.Bury[j].ID))
		}
		for j := range p.Update {
			refs = append(refs, p.Update[j].Ref)
		}
		for j := range p.Append {
			refs = append(refs, p.Append[j].Ref)
			recordRefs, seqs = append(recordRefs, p.Append[j].Ref), append(seqs, int64(p.Append[j].Seq))
		}
	}
	err := each(ctx, tx, func(shard uint32, epoch uint64, _ bool) { h.epochs[shard] = epoch },
		"SELECT shard, epoch, true FROM shards WHERE shard = ANY($1) ORDER BY shard FOR SHARE", shards)
	for _, q := range []struct {
		query string
		args  any
	}{
		{"SELECT ref, id, status FROM runs WHERE id = ANY($1)", ids},
		{"SELECT ref, id, status FROM runs WHERE ref = ANY($1)", refs},
	} {
		if err == nil {
			err = each(ctx, tx, func(ref int64, id string, s store.Status) { h.runs[ref], h.ids[id] = known{id, s}, ref }, q.query, q.args)
		}
	}
	if err == nil {
		err = each(ctx, tx, func(id string, shard uint32, _ bool) { h.tombs[id] = shard },
			"SELECT id, shard, true FROM tombstones WHERE id = ANY($1)", ids)
	}
	if err == nil {
		err = each(ctx, tx, func(ref int64, seq uint64, _ bool) { h.records[number{ref, seq}] = true },
			`SELECT h.ref, h.seq, true FROM unnest($1::bigint[], $2::bigint[]) u (ref, seq) JOIN history h ON h.ref = u.ref AND h.seq = u.seq`,
			recordRefs, seqs)
	}
	if err != nil {
		return nil, fmt.Errorf("looking at what is there: %w", err)
	}
	return h, nil
}

// each calls f with every row of a query of three columns.
func each[A, B, C any](ctx context.Context, tx pgx.Tx, f func(A, B, C), query string, args ...any) error {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	var a A
	var b B
	var c C
	_, err = pgx.ForEachRow(rows, []any{&a, &b, &c}, func() error {
		f(a, b, c)
		return nil
	})
	return err
}

// refuse tells why a part cannot be written; nil if it can.
func (h *there) refuse(p *store.Part, n *names) error {
	if epoch, ok := h.epochs[p.Shard]; !ok || epoch != p.Epoch {
		return fmt.Errorf("shard %d under epoch %d: %w", p.Shard, p.Epoch, store.ErrStaleEpoch)
	}
	for i := range p.Create {
		r := &p.Create[i]
		if _, ok := n.number(r.Workflow, r.Version); !ok {
			return fmt.Errorf("workflow %s version %s of run %s: %w", r.Workflow, r.Version, r.ID, store.ErrNotFound)
		}
	}
	for i := range p.Bury {
		t := &p.Bury[i]
		if _, ok := n.number(t.Workflow, t.Version); !ok && t.Workflow != "" {
			return fmt.Errorf("workflow %s version %s of tombstone %s: %w", t.Workflow, t.Version, t.ID, store.ErrNotFound)
		}
	}
	for _, ref := range p.Remove {
		if r, ok := h.runs[ref]; ok && uint32(ref>>40) == p.Shard && !r.status.Final() {
			return fmt.Errorf("removing run number %d: %w", ref, store.ErrUnended)
		}
	}
	return h.duplicate(p)
}

// duplicate tells whether a part has rows that are there, or records of a run
// that is not.
func (h *there) duplicate(p *store.Part) error {
	ids, refs, records := map[string]bool{}, map[int64]bool{}, map[number]bool{}
	for i := range p.Create {
		r, id := &p.Create[i], clean(p.Create[i].ID)
		_, run := h.ids[id]
		_, tomb := h.tombs[id]
		_, ref := h.runs[r.Ref]
		if run || tomb || ref || ids[id] || refs[r.Ref] {
			return fmt.Errorf("run %s: %w", r.ID, store.ErrDuplicate)
		}
		ids[id], refs[r.Ref] = true, true
	}
	for i := range p.Bury {
		id := clean(p.Bury[i].ID)
		ref, run := h.ids[id]
		run = run && (uint32(ref>>40) != p.Shard || !slices.Contains(p.Remove, ref))
		if _, tomb := h.tombs[id]; run || tomb || ids[id] {
			return fmt.Errorf("tombstone %s: %w", id, store.ErrDuplicate)
		}
		ids[id] = true
	}
	for i := range p.Append {
		r := &p.Append[i]
		k := number{r.Ref, r.Seq}
		if h.records[k] || records[k] {
			return fmt.Errorf("record %d of run number %d: %w", r.Seq, r.Ref, store.ErrDuplicate)
		}
		records[k] = true
	}
	for i := range p.Append {
		if ref := p.Append[i].Ref; !refs[ref] && h.runs[ref] == (known{}) {
			return fmt.Errorf("record of run number %d: %w", ref, store.ErrNotFound)
		}
	}
	return nil
}

// add notes that a part is written.
func (h *there) add(p *store.Part) {
	for i := range p.Create {
		r := &p.Create[i]
		id := clean(r.ID)
		h.runs[r.Ref], h.ids[id] = known{id, r.Status}, r.Ref
	}
	for i := range p.Append {
		h.records[number{p.Append[i].Ref, p.Append[i].Seq}] = true
	}
	for i := range p.Append {
		a := &p.Append[i]
		for k := range h.records {
			if a.DropFrom != 0 && k.ref == a.Ref && a.DropFrom <= k.seq && k.seq < a.Seq {
				delete(h.records, k)
			}
		}
	}
	for i := range p.Update {
		if r, ok := h.runs[p.Update[i].Ref]; ok {
			r.status = p.Update[i].Status
			h.runs[p.Update[i].Ref] = r
		}
	}
	for _, ref := range p.Remove {
		if r, ok := h.runs[ref]; ok && uint32(ref>>40) == p.Shard {
			delete(h.ids, r.id)
			delete(h.runs, ref)
			maps.DeleteFunc(h.records, func(k number, _ bool) bool { return k.ref == ref })
		}
	}
	for i := range p.Bury {
		h.tombs[clean(p.Bury[i].ID)] = p.Bury[i].Shard
	}
	for _, id := range p.Forget {
		if shard, ok := h.tombs[clean(id)]; ok && shard == p.Shard {
			delete(h.tombs, clean(id))
		}
	}
}
