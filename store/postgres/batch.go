package postgres

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ringmaster-dev/ringmaster/store"
)

// batch is what one commit writes, as the parameters of its statements.
type batch struct {
	owned               columns // shards and epochs
	runs, tags          columns
	records, drops      columns
	updates, counts     columns
	putLocks, dropLocks columns
	removed             columns
	tombs, forgotten    columns
	all                 []columns // of these
	pairs               map[pair]bool
	pending             []store.Update
	last                map[int64]int // of each run, the update that counts
	lastLock            map[lockKey]*store.Lock
	created             map[countKey]int64
}

type (
	pair struct {
		shard uint32
		epoch uint64
	}
	lockKey struct {
		shard uint32
		name  string
	}
	// countKey is a row of counts.
	countKey struct {
		workflow int32
		status   store.Status
	}
)

func newBatch() *batch {
	b := &batch{
		owned: newColumns(i4, i8),
		runs:  newColumns(i8, i8, i8, i8, i8, uid, i4, i2, boole, txt, txt, txt, txt, txt, txt, txt, txt),
		tags:  newColumns(txt, txt, i8, i8), records: newColumns(i8, i8, raw), drops: newColumns(i8, i8, i8),
		updates: newColumns(i8, i2, boole, i8, i8, i8, txt, txt), counts: newColumns(i4, i2, i8),
		putLocks: newColumns(i4, raw, raw), dropLocks: newColumns(i4, raw), removed: newColumns(i8),
		tombs: newColumns(i8, i8, i8, i8, uid, i4, i4, i2, boole, txt), forgotten: newColumns(txt, i4),
		pairs: map[pair]bool{}, last: map[int64]int{}, lastLock: map[lockKey]*store.Lock{}, created: map[countKey]int64{},
	}
	b.all = []columns{b.owned, b.runs, b.tags, b.records, b.drops, b.updates, b.counts, b.putLocks, b.dropLocks, b.removed, b.tombs, b.forgotten}
	return b
}

// fill makes the batch of all parts. number returns that of a workflow version,
// which must be registered.
func (b *batch) fill(parts []store.Part, number func(name, version string) int32) error {
	for _, cs := range b.all {
		cs.reset()
	}
	clear(b.pairs)
	clear(b.lastLock)
	clear(b.created)
	b.pending = b.pending[:0]
	for i := range parts {
		p := &parts[i]
		b.pairs[pair{p.Shard, p.Epoch}] = true
		for j := range p.Create {
			if err := b.create(&p.Create[j], number(p.Create[j].Workflow, p.Create[j].Version)); err != nil {
				return err
			}
		}
		b.add(p)
		b.remove(p, number)
		b.pending = append(b.pending, p.Update...)
	}
	b.update(b.pending)
	// In order, so that two stores never wait for each other crosswise.
	for _, k := range slices.SortedFunc(maps.Keys(b.pairs), comparePairs) {
		b.owned[0].int32(int32(k.shard))
		b.owned[1].int64(int64(k.epoch))
	}
	for k, n := range b.created {
		b.counts[0].int32(k.workflow)
		b.counts[1].int16(int16(k.status))
		b.counts[2].int64(n)
	}
	for k, l := range b.lastLock {
		to := b.dropLocks
		if len(l.Data) > 0 {
			to = b.putLocks
			to[2].bytes(l.Data)
		}
		to[0].int32(int32(k.shard))
		to[1].bytes([]byte(k.name))
	}
	return nil
}

func comparePairs(a, b pair) int {
	if a.shard != b.shard {
		return int(a.shard) - int(b.shard)
	}
	if a.epoch < b.epoch {
		return -1
	}
	return 1
}

func (b *batch) create(r *store.Run, workflow int32) error {
	tags, err := b.tag(r)
	if err != nil {
		return err
	}
	created := r.Created.UnixMilli()
	c := b.runs
	c[0].int64(r.Ref)
	c[1].int64(created)
	c[2].int64(r.Updated.UnixMilli())
	c[3].moment(r.Ended)
	c[4].moment(r.Wake)
	c[5].bytes(r.InputHash[:])
	c[6].int32(workflow)
	c[7].int16(int16(r.Status))
	c[8].bool(r.Waived)
	c[9].text(r.ID)
	c[10].text(r.Key)
	c[11].bytes(tags) // JSON is clean
	for i, s := range []string{r.RetryOf, r.FailedStep, r.Error, r.Parent, r.ParentStep} {
		c[12+i].text(s)
	}
	b.created[countKey{workflow, r.Status}]++
	return nil
}

// tag adds a run's tags, and returns them as its row has them.
func (b *batch) tag(r *store.Run) ([]byte, error) {
	if len(r.Tags) == 0 {
		return nil, nil
	}
	tags := make(map[string]string, len(r.Tags))
	for name, value := range r.Tags {
		tags[clean(name)] = clean(value)
	}
	for name, value := range tags {
		b.tags[0].text(name)
		b.tags[1].text(value)
		b.tags[2].int64(r.Created.UnixMilli())
		b.tags[3].int64(r.Ref)
	}
	text, err := json.Marshal(tags)
	if err != nil {
		return nil, fmt.Errorf("tags of run %s: %w", r.ID, err)
	}
	return text, nil
}

// add adds all of a part that is neither a new run nor an update.
func (b *batch) add(p *store.Part) {
	for i := range p.Append {
		r := &p.Append[i]
		b.records[0].int64(r.Ref)
		b.records[1].int64(int64(r.Seq))
		b.records[2].bytes(r.Data)
		if r.DropFrom != 0 {
			b.drops[0].int64(r.Ref)
			b.drops[1].int64(int64(r.DropFrom))
			b.drops[2].int64(int64(r.Seq))
		}
	}
	for i := range p.Locks {
		b.lastLock[lockKey{p.Shard, p.Locks[i].Name}] = &p.Locks[i]
	}
}

// remove adds what a part removes and buries.
func (b *batch) remove(p *store.Part, number func(name, version string) int32) {
	for _, ref := range p.Remove {
		if uint32(ref>>40) == p.Shard {
			b.removed[0].int64(ref)
		}
	}
	c := b.tombs
	for i := range p.Bury {
		t := &p.Bury[i]
		c[0].int64(t.Buried.UnixMilli())
		c[1].moment(t.Until)
		c[2].moment(t.Created)
		c[3].moment(t.Ended)
		c[4].bytes(t.InputHash[:])
		workflow := int32(0)
		if t.Workflow != "" {
			workflow = number(t.Workflow, t.Version)
		}
		c[5].int32(int32(t.Shard))
		c[6].int32(workflow)
		c[7].int16(int16(t.Status))
		c[8].bool(t.Waived)
		c[9].text(t.ID)
	}
	for _, id := range p.Forget {
		b.forgotten[0].text(id)
		b.forgotten[1].int32(int32(p.Shard))
	}
}

// update adds, of all updates of one run, the last, which sets all fields.
func (b *batch) update(updates []store.Update) {
	clear(b.last)
	for i := range updates {
		b.last[updates[i].Ref] = i
	}
	c := b.updates
	for i := range updates {
		u := &updates[i]
		if b.last[u.Ref] != i {
			continue
		}
		c[0].int64(u.Ref)
		c[1].int16(int16(u.Status))
		c[2].bool(u.Waived)
		c[3].int64(u.Updated.UnixMilli())
		c[4].moment(u.Ended)
		c[5].moment(u.Wake)
		c[6].text(u.FailedStep)
		c[7].text(u.Error)
	}
}

// send sends the statements that have something to do, and returns how many.
func (b *batch) send(p *pgconn.Pipeline, bucket int32) (n int) {
	for _, t := range []struct {
		s    statement
		cs   columns
		more [][]byte
	}{
		{insertRuns, b.runs, [][]byte{param64(never)}},
		{insertTags, b.tags, nil},
		{insertRecords, b.records, nil},
		{dropRecords, b.drops, nil},
		{updateRuns, b.updates, [][]byte{param32(bucket), b.counts[0].param(), b.counts[1].param(), b.counts[2].param(), param64(never)}},
		{dropTags, b.removed, nil},
		{dropHistory, b.removed, nil},
		{dropRuns, b.removed, [][]byte{param32(bucket)}},
		{bury, b.tombs, [][]byte{param64(never)}},
		{forget, b.forgotten, nil},
		{putLocks, b.putLocks, nil},
		{dropLocks, b.dropLocks, nil},
	} {
		if t.cs.rows() == 0 && (t.s != updateRuns || b.counts.rows() == 0) {
			continue
		}
		n++
		params := make([][]byte, 0, len(t.cs)+len(t.more))
		for i := range t.cs {
			params = append(params, t.cs[i].param())
		}
		p.SendQueryPrepared(t.s.name, append(params, t.more...), binaryFormat, nil)
	}
	return n
}

// binaryFormat says that all parameters are in binary form.
var binaryFormat = []int16{1}

func param64(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }
func param32(v int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }
