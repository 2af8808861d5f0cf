package storetest

import (
	"fmt"

	"github.com/ringmaster-dev/ringmaster/store"
)

var listTests = []test{
	{"newest first, by creation and then by number", func(b *rig) {
		r1, r2, r3, r4 := b.run(0, "a", 5), b.run(3, "b", 7), b.run(1, "c", 5), b.run(0, "d", 6)
		b.create(r1, r2, r3, r4)
		b.list("all", store.Filter{}, r2, r4, r3, r1)
		b.list("limit", store.Filter{Limit: 2}, r2, r4)
	}},
	{"every filter, alone and with others", filters},
	{"pages neither skip nor repeat while runs are created and changed", stablePages},
	{"limits", func(b *rig) {
		p := b.part(0)
		for i := range 1002 {
			p.Create = append(p.Create, b.run(0, fmt.Sprint("r", i), i))
		}
		b.commit(p)
		for limit, want := range map[int]int{0: 50, 1: 1, 1000: 1000, 5000: 1000} {
			page, err := b.s.List(b.ctx, store.Filter{Limit: limit})
			b.must("listing", err)
			b.equal(fmt.Sprint("runs at limit ", limit), len(page.Runs), want)
			if page.Next == "" {
				b.Errorf("limit %d: no cursor", limit)
			}
		}
		page, err := b.s.List(b.ctx, store.Filter{Limit: 1000, Since: at(2)})
		b.must("listing", err)
		b.equal("runs on a full last page", len(page.Runs), 1000)
		b.equal("cursor of a full last page", page.Next, "")
	}},
	{"a cursor that was not given out is refused", func(b *rig) {
		for _, c := range []string{"x", "AAAA", "AgAAAAAAAAAAAAAAAAAAAAA", "not base64 at all!", "\x00"} {
			_, err := b.s.List(b.ctx, store.Filter{Cursor: c})
			b.is(err, store.ErrBadCursor)
		}
	}},
}

// list checks what a filter selects.
func (b *rig) list(what string, f store.Filter, want ...store.Run) {
	b.Helper()
	page, err := b.s.List(b.ctx, f)
	b.must("listing "+what, err)
	b.equal(what, page.Runs, want)
}

func filters(b *rig) {
	r1 := b.run(0, "ord-1", 1)
	r2 := b.run(1, "ord-2", 2, func(r *store.Run) {
		r.Version, r.Key, r.Status = flowV2, "alice", store.StatusStalled
		r.FailedStep, r.Tags = "pay", map[string]string{"region": "eu", "tier": "1"}
	})
	r3 := b.run(2, "ord%3", 3, func(r *store.Run) {
		r.Workflow, r.Version, r.Key, r.Tags = pay, payV1, "alice", map[string]string{"region": "us"}
		r.Parent, r.ParentStep = "ord-1", "settle"
	})
	r4 := b.run(3, "alice", 4, func(r *store.Run) { // its id is the others' key
		r.Status, r.Ended, r.FailedStep = store.StatusCompensated, at(9), "deliver"
		r.Tags = map[string]string{"region": "eu"}
	})
	r5 := b.run(0, "ord_5", 5, func(r *store.Run) { r.Key, r.FailedStep, r.Parent, r.ParentStep = "", "pay", "ord-1", "check" })
	b.create(r1, r2, r3, r4, r5)
	for _, tt := range []struct {
		name string
		f    store.Filter
		want []store.Run
	}{
		{"workflow", store.Filter{Workflow: flow}, []store.Run{r5, r4, r2, r1}},
		{"absent workflow", store.Filter{Workflow: "none"}, nil},
		{"status", store.Filter{Statuses: []store.Status{store.StatusStalled}}, []store.Run{r2}},
		{"statuses", store.Filter{Statuses: []store.Status{store.StatusStalled, store.StatusCompensated, store.StatusAborted}}, []store.Run{r4, r2}},
		{"workflow and status", store.Filter{Workflow: flow, Statuses: []store.Status{store.StatusRunning}}, []store.Run{r5, r1}},
		{"key", store.Filter{Key: "alice"}, []store.Run{r4, r3, r2}},
		{"key that is the id", store.Filter{Key: "ord-1"}, []store.Run{r1}},
		{"key and workflow", store.Filter{Key: "alice", Workflow: flow}, []store.Run{r4, r2}},
		{"key and status", store.Filter{Key: "alice", Statuses: []store.Status{store.StatusRunning}}, []store.Run{r3}},
		{"tag", store.Filter{TagName: "region", TagValue: "eu"}, []store.Run{r4, r2}},
		{"tag of any value", store.Filter{TagName: "region"}, []store.Run{r4, r3, r2}},
		{"tag value without a name", store.Filter{TagValue: "eu"}, []store.Run{r5, r4, r3, r2, r1}},
		{"tag and key", store.Filter{TagName: "region", TagValue: "eu", Key: "alice"}, []store.Run{r4, r2}},
		{"tag and failed step", store.Filter{TagName: "tier", FailedStep: "pay"}, []store.Run{r2}},
		{"id prefix", store.Filter{IDPrefix: "ord"}, []store.Run{r5, r3, r2, r1}},
		{"id prefix with wildcards of SQL", store.Filter{IDPrefix: "ord_"}, []store.Run{r5}},
		{"id prefix with more wildcards", store.Filter{IDPrefix: "ord%"}, []store.Run{r3}},
		{"whole id", store.Filter{IDPrefix: "ord-2"}, []store.Run{r2}},
		{"id prefix in other case", store.Filter{IDPrefix: "ORD"}, nil},
		{"id prefix and key", store.Filter{IDPrefix: "ord", Key: "alice"}, []store.Run{r3, r2}},
		{"id prefix and tag", store.Filter{IDPrefix: "ord-", TagName: "region", TagValue: "eu"}, []store.Run{r2}},
		{"failed step", store.Filter{FailedStep: "pay"}, []store.Run{r5, r2}},
		{"failed step and status", store.Filter{FailedStep: "pay", Statuses: []store.Status{store.StatusStalled}}, []store.Run{r2}},
		{"parent", store.Filter{Parent: "ord-1"}, []store.Run{r5, r3}},
		{"parent and key", store.Filter{Parent: "ord-1", Key: "alice"}, []store.Run{r3}},
		{"parent and failed step", store.Filter{Parent: "ord-1", FailedStep: "pay"}, []store.Run{r5}},
		{"parent without children", store.Filter{Parent: "ord-2"}, nil},
		{"since", store.Filter{Since: at(3)}, []store.Run{r5, r4, r3}},
		{"since a fraction later", store.Filter{Since: at(3).Add(1)}, []store.Run{r5, r4}},
		{"until", store.Filter{Until: at(3)}, []store.Run{r2, r1}},
		{"until a fraction later", store.Filter{Until: at(3).Add(1)}, []store.Run{r3, r2, r1}},
		{"since and until", store.Filter{Since: at(2), Until: at(4)}, []store.Run{r3, r2}},
		{"all of them", store.Filter{Workflow: flow, Statuses: []store.Status{store.StatusStalled}, Key: "alice", TagName: "tier",
			TagValue: "1", IDPrefix: "ord", FailedStep: "pay", Since: at(1), Until: at(3)}, []store.Run{r2}},
		{"one of them off", store.Filter{Workflow: pay, Statuses: []store.Status{store.StatusStalled}, Key: "alice", TagName: "tier",
			TagValue: "1", IDPrefix: "ord", FailedStep: "pay", Since: at(1), Until: at(3)}, nil},
	} {
		b.list(tt.name, tt.f, tt.want...)
	}
}

func stablePages(b *rig) {
	var want []string
	for i := range 40 {
		r := b.run(uint32(i%rigShards), fmt.Sprint("old", i), i/4, func(r *store.Run) {
			r.Tags = map[string]string{"t": fmt.Sprint(i % 2)}
			if i%3 == 0 {
				r.Key = "k"
			}
		})
		b.create(r)
	}
	all, err := b.s.List(b.ctx, store.Filter{Limit: 100})
	b.must("listing", err)
	for _, r := range all.Runs {
		want = append(want, r.ID)
	}
	for name, f := range map[string]store.Filter{
		"all": {}, "workflow": {Workflow: flow}, "prefix": {IDPrefix: "old"}, "tag": {TagName: "t"},
	} {
		f.Limit = 7
		var got []string
		for pages := 0; ; pages++ {
			page, err := b.s.List(b.ctx, f)
			b.must("listing", err)
			for _, r := range page.Runs {
				got = append(got, r.ID)
			}
			if f.Cursor = page.Next; f.Cursor == "" {
				break
			}
			// A newer run does not shift the pages, a changed one stays in place.
			b.create(b.run(0, fmt.Sprintf("old but new %s %d", name, pages), 1000+pages, func(r *store.Run) {
				r.Tags = map[string]string{"t": "1"}
			}))
			r := all.Runs[pages*3]
			b.update(store.Update{Ref: r.Ref, Status: store.StatusSucceeded, Updated: at(2000), Ended: at(2000)})
		}
		got = keep(got, want)
		b.equal("ids by "+name, got, want)
	}
}

// keep returns the strings of list that are in of.
func keep(list, of []string) (out []string) {
	in := map[string]bool{}
	for _, s := range of {
		in[s] = true
	}
	for _, s := range list {
		if in[s] {
			out = append(out, s)
		}
	}
	return out
}
