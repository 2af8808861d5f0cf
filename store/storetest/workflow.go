package storetest

import (
	"github.com/ringmaster-dev/ringmaster/store"
)

var workflowTests = []test{
	{"registering is idempotent and the first time activates", func(b *rig) {
		active := func(version string) {
			b.Helper()
			info, def, err := b.s.Workflow(b.ctx, flow, "")
			b.must("reading the active version", err)
			b.equal("active version", info.Version, version)
			b.equal("its definition", string(def), string(definition(flow, version)))
			if !info.Active {
				b.Error("the active version is not marked")
			}
		}
		active(flowV2)
		// An older one again, at another time: it is as it was and not active.
		again := workflowInfo(flow, flowV1)
		again.Registered, again.Kind = at(1000), "another"
		info, created, err := b.s.PutWorkflow(b.ctx, again, definition(flow, flowV1))
		b.must("registering again", err)
		b.equal("created", created, false)
		b.equal("info", info, workflowInfo(flow, flowV1))
		active(flowV2)
		third := workflowInfo(flow, "v3")
		info, created, err = b.s.PutWorkflow(b.ctx, third, definition(flow, "v3"))
		b.must("registering a third", err)
		third.Active = true
		b.equal("created", created, true)
		b.equal("info", info, third)
		active("v3")
		b.must("activating", b.s.ActivateWorkflow(b.ctx, flow, flowV1))
		active(flowV1)
		b.close()
		b.open()
		active(flowV1)
		// A run may refer to any.
		b.create(b.run(0, "a", 1), b.run(0, "b", 1, func(r *store.Run) { r.Version = "v3" }))
		b.equal("version", b.get("b").Version, "v3")
	}},
	{"what is not there is not found", func(b *rig) {
		_, _, err := b.s.Workflow(b.ctx, "none", "")
		b.is(err, store.ErrNotFound)
		_, _, err = b.s.Workflow(b.ctx, flow, "none")
		b.is(err, store.ErrNotFound)
		b.is(b.s.ActivateWorkflow(b.ctx, flow, "none"), store.ErrNotFound)
		b.is(b.s.ActivateWorkflow(b.ctx, "none", flowV1), store.ErrNotFound)
		info, _, err := b.s.Workflow(b.ctx, flow, "")
		b.must("reading", err)
		b.equal("active version", info.Version, flowV2)
	}},
	{"all versions are listed by name, newest first", func(b *rig) {
		b.workflow("another", "x")
		got, err := b.s.Workflows(b.ctx)
		b.must("listing", err)
		want := []store.WorkflowInfo{workflowInfo("another", "x"), workflowInfo(flow, flowV2), workflowInfo(flow, flowV1), workflowInfo(pay, payV1)}
		want[0].Active, want[1].Active, want[3].Active = true, true, true
		b.equal("workflows", got, want)
	}},
}
