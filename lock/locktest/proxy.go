package locktest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// proxied puts a proxy before each host of an address.
func proxied(t *testing.T, address string) (string, *proxies) {
	t.Helper()
	// Several hosts are no URL in the eyes of net/url.
	scheme, rest, _ := strings.Cut(address, "://")
	hosts, path := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		hosts, path = rest[:i], rest[i:]
	}
	user := ""
	if i := strings.LastIndexByte(hosts, '@'); i >= 0 {
		user, hosts = hosts[:i+1], hosts[i+1:]
	}
	all := &proxies{}
	var names []string
	for host := range strings.SplitSeq(hosts, ",") {
		p := newProxy(t, host)
		all.list = append(all.list, p)
		names = append(names, p.listener.Addr().String())
	}
	result := scheme + "://" + user + strings.Join(names, ",") + path
	if len(names) == 1 {
		if _, err := url.Parse(result); err != nil {
			t.Fatal(err)
		}
	}
	return result, all
}

// proxies is the network between a provider and its servers.
type proxies struct{ list []*proxy }

// stop holds everything back that is under way, in both directions. Connections
// stay, as they do when a cable is pulled.
func (p *proxies) stop() {
	for _, x := range p.list {
		x.gate.Lock()
	}
}

// resume lets it through.
func (p *proxies) resume() {
	for _, x := range p.list {
		x.gate.Unlock()
	}
}

// cut breaks all connections.
func (p *proxies) cut() {
	for _, x := range p.list {
		x.cut()
	}
}

type proxy struct {
	listener net.Listener
	target   string
	gate     sync.RWMutex // locked while nothing passes

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	over  bool
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: target, conns: map[net.Conn]struct{}{}}
	var wg sync.WaitGroup
	wg.Go(func() { p.accept(&wg) })
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.over = true
		p.mu.Unlock()
		p.cut()
		wg.Wait()
	})
	return p
}

func (p *proxy) accept(wg *sync.WaitGroup) {
	for {
		from, err := p.listener.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer p.forget(from)
			if !p.remember(from) {
				return
			}
			p.pass() // a connection is not made either while nothing passes
			to, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
			if err != nil {
				return
			}
			defer p.forget(to)
			if !p.remember(to) {
				return
			}
			var both sync.WaitGroup
			both.Go(func() { p.copy(from, to) })
			both.Go(func() { p.copy(to, from) })
			both.Wait()
		})
	}
}

// pass returns when things pass.
func (p *proxy) pass() {
	p.gate.RLock()
	defer p.gate.RUnlock()
}

func (p *proxy) copy(from, to net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.pass()
		if n > 0 {
			if _, werr := to.Write(buffer[:n]); werr != nil {
				err = werr
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = from.Close()
			}
			_ = to.Close()
			return
		}
	}
}

func (p *proxy) remember(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = struct{}{}
	return !p.over
}

func (p *proxy) forget(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}
