// Package open opens the lock provider that an address names. Whoever knows which
// one it is takes its own package, which has more settings.
package open

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/etcd"
	"github.com/ringmaster-dev/ringmaster/lock/postgres"
	"github.com/ringmaster-dev/ringmaster/lock/redis"
	"github.com/ringmaster-dev/ringmaster/lock/zookeeper"
)

// Addresses says how addresses are written, for error messages and help texts.
const Addresses = "postgres://user:password@host:5432/database, redis://host:6379 (rediss:// with TLS; three or five independent nodes with commas between), " +
	"zookeeper://host:2181,host:2181/path or etcd://host:2379,host:2379 (etcds:// with TLS)"

// Config sets apart what shares servers.
type Config struct {
	// Namespace is part of every name at the servers: of PostgreSQL's schema,
	// Redis's keys, ZooKeeper's path, etcd's keys. Default "ringmaster".
	Namespace string
	// Logger gets what an operator should know; nil discards.
	Logger *slog.Logger
}

// Check returns lock.ErrInvalid for what is no address of a provider. It
// connects to nothing.
func Check(address string) error {
	_, err := parse(address)
	return err
}

// URL opens the provider that an address names (see [Addresses]). PostgreSQL is
// asked at once; whether the others can be reached is known when a session opens.
func URL(ctx context.Context, address string, c Config) (lock.Provider, error) {
	a, err := parse(address)
	if err != nil {
		return nil, err
	}
	if c.Namespace == "" {
		c.Namespace = "ringmaster"
	}
	password, _ := a.user.Password()
	switch a.scheme {
	case "postgres", "postgresql":
		return opened(postgres.New(ctx, postgres.Config{URL: address, Schema: c.Namespace, Logger: c.Logger}))
	case "redis", "rediss":
		return opened(redis.New(redis.Config{URLs: a.nodes(), Prefix: "{" + c.Namespace + ":locks}:", Logger: c.Logger}))
	case "zookeeper":
		return opened(zookeeper.New(zookeeper.Config{Servers: a.hosts, Path: path.Join("/", a.path("ringmaster"), c.Namespace, "locks"),
			Username: a.user.Username(), Password: password, Logger: c.Logger}))
	}
	hosts := a.hosts
	if a.scheme == "etcds" {
		hosts = a.nodes()
	}
	return opened(etcd.New(etcd.Config{Endpoints: hosts, Prefix: path.Join(a.path("ringmaster"), c.Namespace, "locks"),
		Username: a.user.Username(), Password: password}))
}

// opened is a provider, or none at all.
func opened[P lock.Provider](p P, err error) (lock.Provider, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

// parts are those of an address with any number of hosts.
type parts struct {
	scheme string
	user   *url.Userinfo
	hosts  []string
	rest   string // the path and what follows
}

// ports are those of the hosts that name none, by scheme.
var ports = map[string]string{"postgres": "", "postgresql": "", "redis": "6379", "rediss": "6379", "zookeeper": "2181", "etcd": "2379", "etcds": "2379"}

// parse never quotes the address, in which there may be a password.
func parse(address string) (parts, error) {
	scheme, rest, ok := strings.Cut(address, "://")
	port, known := ports[scheme]
	if !ok || !known {
		return parts{}, fmt.Errorf("%w: the address of a lock provider begins with postgres://, redis://, zookeeper:// or etcd://", lock.ErrInvalid)
	}
	p := parts{scheme: scheme}
	if scheme == "postgres" || scheme == "postgresql" {
		if _, err := pgx.ParseConfig(address); err != nil { // which hides the password
			return parts{}, fmt.Errorf("%w: %w", lock.ErrInvalid, err)
		}
		return p, nil
	}
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		rest, p.rest = rest[:i], rest[i:]
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		u, err := url.Parse("x://" + rest[:i] + "@host")
		if err != nil {
			return parts{}, fmt.Errorf("%w: user and password in the address of a lock provider: special characters are written as %%XX", lock.ErrInvalid)
		}
		p.user, rest = u.User, rest[i+1:]
	}
	for host := range strings.SplitSeq(rest, ",") {
		host = strings.TrimSpace(host)
		if name, _, err := net.SplitHostPort(host); err != nil && host != "" {
			host = net.JoinHostPort(strings.Trim(host, "[]"), port)
		} else if name == "" {
			return parts{}, fmt.Errorf("%w: a host is missing in the address of a lock provider: %s://host:%s", lock.ErrInvalid, scheme, port)
		}
		p.hosts = append(p.hosts, host)
	}
	if n := len(p.hosts); n%2 == 0 && (scheme == "redis" || scheme == "rediss") {
		return parts{}, fmt.Errorf("%w: %d nodes of Redis: one is needed, or an odd number of which more than half must grant a lease", lock.ErrInvalid, n)
	}
	return p, nil
}

// path is the path of the address, or another if it has none.
func (p parts) path(or string) string {
	name, _, _ := strings.Cut(p.rest, "?")
	if name = strings.Trim(name, "/"); name == "" {
		return or
	}
	return name
}

// nodes are the addresses of the hosts one by one.
func (p parts) nodes() (list []string) {
	scheme := p.scheme
	if scheme == "etcds" {
		scheme = "https"
	}
	for _, host := range p.hosts {
		u := url.URL{Scheme: scheme, User: p.user, Host: host}
		if scheme == "https" {
			u.User = nil // given apart
			list = append(list, u.String())
			continue
		}
		list = append(list, u.String()+p.rest)
	}
	return list
}
