package testenv

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// cleanupScript is run by the reaper before it removes the directory.
const cleanupScript = "cleanup.sh"

// network is a bridge on this machine with network namespaces around it, each
// of them like a machine of its own. Processes outside reach them over the
// bridge.
type network struct {
	Bridge string
	Links  []*namespaceLink
}

// namespaceLink is one network namespace and its link to the bridge.
type namespaceLink struct {
	Namespace string
	Interface string // the end of the link that is on the bridge
	Address   string
	Peers     []string // the addresses of the others
}

// namespacesWork reports whether network namespaces can be made here.
func namespacesWork(ctx context.Context) bool {
	if os.Geteuid() != 0 {
		return false
	}
	name := "rm-" + strings.ToLower(rand.Text()[:8])
	if ip(ctx, "netns", "add", name) != nil {
		return false
	}
	return ip(ctx, "netns", "del", name) == nil
}

func ip(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// newNetwork makes a network of n namespaces with an address range of its own.
// How to undo it is written into dir first.
func newNetwork(ctx context.Context, dir string, n int) (*network, error) {
	for attempt := 1; ; attempt++ {
		b := []byte(rand.Text())
		second, third := 64+b[0]%64, b[1]^b[2]<<3
		w := &network{Bridge: fmt.Sprintf("rm%d-%d", second, third)}
		at := func(i int) string { return netip.AddrFrom4([4]byte{10, second, third, byte(i)}).String() }
		// The name follows from the range: whoever has the name has the range.
		err := ip(ctx, "link", "add", w.Bridge, "type", "bridge")
		if err == nil {
			return w, w.build(ctx, dir, n, at)
		}
		if attempt == 10 || ctx.Err() != nil {
			return nil, err
		}
	}
}

func (w *network) build(ctx context.Context, dir string, n int, at func(int) string) error {
	for i := 1; i <= n; i++ {
		l := &namespaceLink{
			Namespace: fmt.Sprintf("%s-%d", w.Bridge, i), Interface: fmt.Sprintf("%s-%d", w.Bridge, i), Address: at(i),
		}
		for j := 1; j <= n; j++ {
			if j != i {
				l.Peers = append(l.Peers, at(j))
			}
		}
		w.Links = append(w.Links, l)
	}
	var undo strings.Builder
	for _, args := range w.undo() {
		fmt.Fprintf(&undo, "ip %s\n", strings.Join(args, " "))
	}
	if err := os.WriteFile(filepath.Join(dir, cleanupScript), []byte(undo.String()), 0o644); err != nil {
		return err
	}
	steps := [][]string{{"addr", "add", at(254) + "/24", "dev", w.Bridge}, {"link", "set", w.Bridge, "up"}}
	for _, l := range w.Links {
		steps = append(steps,
			[]string{"netns", "add", l.Namespace},
			[]string{"link", "add", l.Interface, "type", "veth", "peer", "name", "eth0", "netns", l.Namespace},
			[]string{"link", "set", l.Interface, "master", w.Bridge, "up"},
			[]string{"-n", l.Namespace, "addr", "add", l.Address + "/24", "dev", "eth0"},
			[]string{"-n", l.Namespace, "link", "set", "lo", "up"},
			[]string{"-n", l.Namespace, "link", "set", "eth0", "up"})
	}
	for _, args := range steps {
		if err := ip(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// undo is what removes the network. The link goes with its namespace once the
// last process there has ended, which need not be at once.
func (w *network) undo() (steps [][]string) {
	for _, l := range w.Links {
		steps = append(steps, []string{"link", "del", l.Interface}, []string{"netns", "del", l.Namespace})
	}
	return append(steps, []string{"link", "del", w.Bridge})
}

// remove ends the network after the processes in it.
func (w *network) remove(ctx context.Context) error {
	if w == nil {
		return nil
	}
	var errs []error
	for _, args := range w.undo() {
		errs = append(errs, ip(ctx, args...))
	}
	return errors.Join(errs...)
}

// command prepares a program that runs in the namespace; nil is that of the
// caller.
func (l *namespaceLink) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	if l == nil {
		return exec.CommandContext(ctx, program, args...)
	}
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", l.Namespace, program}, args...)...)
}

// cut takes the namespace off the network: what is sent is lost, silently.
func (l *namespaceLink) cut(ctx context.Context) error {
	return ip(ctx, "link", "set", l.Interface, "down")
}

// isolate has it lose what it sends to its peers, and nothing else.
func (l *namespaceLink) isolate(ctx context.Context) error {
	for _, p := range l.Peers {
		if err := ip(ctx, "-n", l.Namespace, "route", "replace", "blackhole", p+"/32"); err != nil {
			return err
		}
	}
	return nil
}

// heal ends both.
func (l *namespaceLink) heal(ctx context.Context) error {
	return errors.Join(ip(ctx, "link", "set", l.Interface, "up"),
		ip(ctx, "-n", l.Namespace, "route", "flush", "type", "blackhole"))
}
