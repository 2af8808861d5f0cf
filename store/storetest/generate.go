package storetest

import (
	"fmt"
	"slices"

	"github.com/ringmaster-dev/ringmaster/store"
)

// chooser picks a number below n.
type chooser func(n int) int

func pick[T any](c chooser, of ...T) T { return of[c(len(of))] }

// sometimes is true once in n times.
func (c chooser) sometimes(n int) bool { return c(n) == n-1 }

// generator makes parts from choices. It draws from few values, so that they
// meet, and knows what it made before, so that most parts fit that and some
// do not.
type generator struct {
	choose chooser
	shards uint32
	epochs map[uint32]uint64
	next   map[uint32]int64 // last ref by shard
	runs   []int64          // refs of runs made, whether written or not
	seqs   map[int64]uint64 // highest number of a record by run
	ids    int              // ids made
	tombs  int              // ids of tombstones made
	idOf   map[int64]string // ids of runs made
	ended  map[int64]bool   // runs that have ended, as far as is known
	gone   map[int64]bool   // runs that are or were removed
	faulty bool             // also makes parts that must fail
	apart  bool             // which they do not by ids of other shards
	ms     int              // of the latest time used
}

func newGenerator(c chooser, shards uint32, faulty bool) *generator {
	return &generator{choose: c, shards: shards, epochs: map[uint32]uint64{}, next: map[uint32]int64{},
		seqs: map[int64]uint64{}, idOf: map[int64]string{}, ended: map[int64]bool{}, gone: map[int64]bool{}, faulty: faulty}
}

// commit makes the parts of one commit, of distinct shards unless faulty.
func (g *generator) commit() []store.Part {
	var parts []store.Part
	for shard := range g.shards {
		if g.choose(3) == 0 {
			continue
		}
		parts = append(parts, g.part(shard))
		if g.faulty && g.choose.sometimes(10) {
			parts = append(parts, g.part(shard))
		}
	}
	return parts
}

func (g *generator) part(shard uint32) store.Part {
	p := store.Part{Shard: shard, Epoch: g.epochs[shard]}
	if g.faulty && g.choose.sometimes(10) {
		p.Epoch += uint64(g.choose(3)) - 1
	}
	g.ms += g.choose(3)
	for range g.choose(4) {
		r := g.run(shard)
		p.Create = append(p.Create, r)
		g.runs = append(g.runs, r.Ref)
		p.Append = append(p.Append, g.record(r.Ref))
	}
	g.remove(&p)
	for range g.choose(4) {
		if ref, ok := g.known(shard); ok {
			p.Append = append(p.Append, g.record(ref))
		}
	}
	for range g.choose(3) {
		if ref, ok := g.known(shard); ok {
			p.Update = append(p.Update, g.update(ref))
		}
	}
	for range g.choose(3) {
		l := store.Lock{Name: pick(g.choose, "a", "a/b", "B", "é'")}
		for range g.choose(3) {
			l.Data = append(l.Data, byte(g.choose(256)), byte(len(p.Create)))
		}
		p.Locks = append(p.Locks, l)
	}
	if g.tombs < len(generatedTombstones) && g.choose.sometimes(4) {
		p.Bury = append(p.Bury, g.tombstone(shard))
	}
	return p
}

// remove has a part remove an ended run, and bury it as a rule, or forget a
// tombstone.
func (g *generator) remove(p *store.Part) {
	if ref, ok := g.known(p.Shard); ok && g.choose.sometimes(3) {
		ended := g.ended[ref]
		if !slices.ContainsFunc(p.Create, func(r store.Run) bool { return r.Ref == ref }) && (ended || g.faulty && g.choose.sometimes(4)) {
			p.Remove = append(p.Remove, ref)
			g.gone[ref] = true
			if ended && g.choose(4) != 0 {
				p.Bury = append(p.Bury, store.Tombstone{
					ID: g.idOf[ref], Shard: p.Shard, Status: store.StatusSucceeded, Buried: at(g.ms), Until: at(g.ms + g.choose(5)),
					Workflow: flow, Version: pick(g.choose, flowV1, flowV2), InputHash: [16]byte{byte(g.choose(256))},
					Waived: g.choose(2) == 0, Created: at(g.choose(5)), Ended: at(g.ms),
				})
			}
			if g.faulty && len(p.Bury) > 0 && g.choose.sometimes(10) {
				p.Bury[len(p.Bury)-1].Version = "unheard of"
			}
		}
	}
	if g.tombs > 0 && g.choose.sometimes(6) {
		p.Forget = append(p.Forget, generatedTombstones[g.choose(g.tombs)])
	}
}

// generatedTombstones are the ids that a generator's tombstones may have.
var generatedTombstones = func() (ids []string) {
	for i := range 200 {
		ids = append(ids, fmt.Sprintf("t%d", i+1))
	}
	return ids
}()

func (g *generator) tombstone(shard uint32) store.Tombstone {
	t := store.Tombstone{
		Shard: shard, Status: pick(g.choose, store.StatusAborted, store.StatusAborted, store.StatusCommitted), Buried: at(g.ms),
	}
	if g.choose(2) == 0 {
		t.Until = at(g.ms + g.choose(5))
	}
	t.ID = generatedTombstones[g.tombs%len(generatedTombstones)]
	g.tombs++
	switch {
	case g.faulty && g.ids > 0 && g.choose.sometimes(10):
		t.ID = g.taken(shard, fmt.Sprintf("a%d", 1+g.choose(g.ids))) // of a run
	case g.faulty && g.choose.sometimes(10):
		t.ID = g.taken(shard, generatedTombstones[g.choose(g.tombs)])
	}
	return t
}

// taken is an id that may be taken: the one given, unless that may be taken by
// another shard, with which it is not compared.
func (g *generator) taken(shard uint32, id string) string {
	if !g.apart {
		return id
	}
	if ref, ok := g.known(shard); ok {
		return g.idOf[ref]
	}
	return fmt.Sprintf("free%d", g.ids+g.tombs)
}

// known picks a run of a shard.
func (g *generator) known(shard uint32) (int64, bool) {
	var of []int64
	for _, ref := range g.runs {
		if uint32(ref>>40) == shard && !g.gone[ref] {
			of = append(of, ref)
		}
	}
	if len(of) == 0 {
		return 0, false
	}
	return pick(g.choose, of...), true
}

func (g *generator) run(shard uint32) store.Run {
	g.next[shard] = max(g.next[shard], store.RefBase(shard)) + 1
	g.ids++
	r := store.Run{
		Ref: g.next[shard], ID: fmt.Sprintf("%s%d", pick(g.choose, "a", "ab", "b-"), g.ids), Shard: shard,
		Status: pick(g.choose, store.StatusRunning, store.StatusRunning, store.StatusStalled, store.StatusSucceeded),
		Key:    pick(g.choose, "", "k1", "k2"), Waived: g.choose(5) == 0, InputHash: [16]byte{byte(g.choose(256))},
		Created: at(g.ms), Updated: at(g.ms + g.choose(3)),
	}
	r.Workflow, r.Version = flow, pick(g.choose, flowV1, flowV2)
	if g.choose(3) == 0 {
		r.Workflow, r.Version = pay, payV1
	}
	if g.choose(2) == 0 {
		r.Key = r.ID
	}
	if g.choose(3) == 0 {
		r.Tags = map[string]string{pick(g.choose, "t", "u"): pick(g.choose, "1", "2", "")}
	}
	if g.choose(3) == 0 {
		r.FailedStep, r.Error = pick(g.choose, "pay", "ship"), "E"
	}
	if g.choose(3) == 0 {
		r.Parent, r.ParentStep = pick(g.choose, "a1", "ab2"), "settle"
	}
	if g.choose(3) == 0 {
		r.Wake = at(g.ms + g.choose(5))
	}
	if r.Status.Final() {
		r.Ended = r.Updated
		g.ended[r.Ref] = true
	}
	if g.faulty && g.choose.sometimes(20) {
		r.ID = g.taken(shard, fmt.Sprintf("a%d", 1+g.choose(g.ids)))
	}
	if g.faulty && g.tombs > 0 && g.choose.sometimes(20) {
		r.ID = g.taken(shard, generatedTombstones[g.choose(g.tombs)])
	}
	if g.faulty && g.choose.sometimes(20) {
		r.Version = "unheard of"
	}
	g.idOf[r.Ref] = r.ID
	return r
}

func (g *generator) record(ref int64) store.Record {
	last := g.seqs[ref]
	g.seqs[ref] += 1 + uint64(g.choose(2))
	r := store.Record{Ref: ref, Seq: g.seqs[ref], Data: fmt.Appendf(nil, "%d.%d", ref, g.seqs[ref])}
	for range g.choose(3) {
		r.Data = append(r.Data, make([]byte, g.choose(200))...)
	}
	if g.choose.sometimes(6) {
		r.DropFrom = 1 + uint64(g.choose(int(r.Seq)))
	}
	if g.faulty && last > 0 && g.choose.sometimes(20) {
		// Twice the same. Numbers below that of a checkpoint do not come again.
		r.Seq = last
	}
	return r
}

func (g *generator) update(ref int64) store.Update {
	u := store.Update{
		Ref: ref, Status: store.Status(1 + g.choose(int(store.StatusAborted))), Waived: g.choose(4) == 0,
		Updated: at(g.ms), FailedStep: pick(g.choose, "", "pay", "ship"), Error: pick(g.choose, "", "E: no"),
	}
	if g.ended[ref] = u.Status.Final(); g.ended[ref] {
		u.Ended = at(g.ms)
	}
	if g.choose(3) == 0 {
		u.Wake = at(g.ms + g.choose(5))
	}
	return u
}

// filter makes a filter of a list.
func (g *generator) filter() store.Filter {
	f := store.Filter{Limit: 1 + g.choose(5)}
	maybe := func() bool { return g.choose(4) == 0 }
	if maybe() {
		f.Workflow = pick(g.choose, flow, pay, "none")
	}
	if maybe() {
		for range 1 + g.choose(2) {
			f.Statuses = append(f.Statuses, store.Status(1+g.choose(int(store.StatusAborted))))
		}
	}
	if maybe() {
		f.Key = pick(g.choose, "k1", "k2", "a1")
	}
	if maybe() {
		f.TagName, f.TagValue = pick(g.choose, "t", "u"), pick(g.choose, "", "1", "2")
	}
	if maybe() {
		f.IDPrefix = pick(g.choose, "a", "ab", "b", "a1")
	}
	if maybe() {
		f.FailedStep = pick(g.choose, "pay", "ship")
	}
	if maybe() {
		f.Parent = pick(g.choose, "a1", "ab2", "b3")
	}
	if maybe() {
		f.Since = at(g.choose(g.ms + 2))
	}
	if maybe() {
		f.Until = at(g.choose(g.ms + 2))
	}
	return f
}
