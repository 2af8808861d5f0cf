package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/ring"
)

// maxFallback bounds the list of workers that a key would go to next.
const maxFallback = 10

// Ring returns a service's ring of the workers that are ready, or, with a task
// type, of those of them that serve it; with a key, also where that key goes, and
// where it would go if that worker left.
func (e *Engine) Ring(_ context.Context, service, taskType, key string) (rest.Ring, error) {
	d := e.dispatcher
	d.mu.Lock()
	defer d.mu.Unlock()
	var members []ring.Member
	var peers []*peer
	known := false
	for _, p := range d.sortedPeers() {
		if p.service != service {
			continue
		}
		known = true
		if p.ready() && (taskType == "" || slices.Contains(p.types, taskType)) {
			peers = append(peers, p)
			members = append(members, p.member())
		}
	}
	for k := range d.classes {
		known = known || k.service == service
	}
	if !known {
		return rest.Ring{}, &Error{Kind: KindNotFound, Code: "unknown_service", Field: "service", Message: fmt.Sprintf("no worker and no run has spoken of a service %q", service)}
	}
	r, err := ring.New(members)
	if err != nil {
		return rest.Ring{}, err
	}
	out := rest.Ring{Service: service, TaskType: taskType, Points: r.Points(), Members: make([]rest.RingMember, len(peers)), Key: key}
	for i, share := range r.Shares() {
		p := peers[i]
		out.Members[i] = rest.RingMember{Worker: p.id, Name: p.name, Weight: p.weight, Share: share, Outstanding: len(p.out)}
	}
	if key == "" {
		return out, nil
	}
	for i := range r.Successors(ring.Hash(key)) {
		switch {
		case out.Owner == "":
			out.Owner = peers[i].id
		case len(out.Fallback) < maxFallback:
			out.Fallback = append(out.Fallback, peers[i].id)
		}
	}
	return out, nil
}
