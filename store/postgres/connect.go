package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/jmoiron/sqlx"
)

const (
	// connectTimeout bounds making one connection, where the URL says nothing.
	connectTimeout = 5 * time.Second
	// A peer that is silent is given up after about ten seconds, by both sides.
	keepAliveIdle, keepAliveInterval, keepAliveCount = 5 * time.Second, 2 * time.Second, 3
)

// tuning is what tests set otherwise.
type tuning struct {
	// dial, if not nil, makes the connections that commit.
	dial pgconn.DialFunc
	// params are more parameters of all sessions.
	params map[string]string
	// attempt is the time for the first attempt at a commit; zero is
	// [attemptTimeout].
	attempt time.Duration
}

// target is a database to connect to.
type target struct {
	name   string // for people: without a password
	id     string // of this store, among the server's sessions
	config *pgx.ConnConfig
	tune   tuning
}

// sessionParams are set in every session. What is asked for is always a few
// rows by an index, so PostgreSQL need not consider anything else, which it would
// as long as it takes tables for small.
var sessionParams = map[string]string{
	"jit":                     "off",
	"enable_seqscan":          "off",
	"enable_bitmapscan":       "off",
	"client_encoding":         "UTF8",
	"timezone":                "UTC",
	"tcp_keepalives_idle":     strconv.Itoa(int(keepAliveIdle.Seconds())),
	"tcp_keepalives_interval": strconv.Itoa(int(keepAliveInterval.Seconds())),
	"tcp_keepalives_count":    strconv.Itoa(keepAliveCount),
}

// commitParams are set in sessions that commit, whose statements go from the
// rows of a list to an index entry each, and are planned once.
var commitParams = map[string]string{
	"plan_cache_mode":  "force_generic_plan",
	"enable_hashjoin":  "off",
	"enable_mergejoin": "off",
	"lock_timeout":     "0",
}

func newTarget(cfg Config, tune tuning) (*target, error) {
	c, err := pgx.ParseConfig(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("the URL: %w", err) // its text has no password in it
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	c.DialFunc = (&net.Dialer{Timeout: c.ConnectTimeout, KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
	}}).DialContext
	maps.Copy(c.RuntimeParams, sessionParams)
	maps.Copy(c.RuntimeParams, tune.params)
	c.RuntimeParams["search_path"] = quoted(cfg.Schema)
	if tune.attempt == 0 {
		tune.attempt = attemptTimeout
	}
	t := &target{config: c, tune: tune, id: strings.ToLower(rand.Text()[:13])}
	where := url.URL{Scheme: "postgres", Host: net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))), Path: c.Database}
	t.name = where.String() + " schema " + cfg.Schema
	return t, nil
}

// appName is the name of a session of this store, as the server shows it.
func (t *target) appName(purpose string) string { return "ringmaster" + purpose + " " + t.id }

const committing = " commit" // the purpose of sessions that commit

// open makes a pool of connections. None is made yet.
func (t *target) open(purpose string, conns int) *sqlx.DB {
	c := t.config.Copy()
	c.RuntimeParams["application_name"] = t.appName(purpose)
	if purpose == committing {
		maps.Copy(c.RuntimeParams, commitParams)
		if t.tune.dial != nil {
			c.DialFunc = t.tune.dial
		}
	}
	db := sqlx.NewDb(stdlib.OpenDB(*c), "pgx")
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db
}

// assertDurable reads back the setting that makes a commit durable.
func assertDurable(ctx context.Context, c *pgx.Conn) error {
	var sync string
	err := c.QueryRow(ctx, "SELECT current_setting('synchronous_commit')").Scan(&sync)
	if err != nil {
		return fmt.Errorf("reading synchronous_commit: %w", err)
	}
	if sync == "off" {
		return fmt.Errorf("%w: the server, the database or the role sets it; set it to on (ALTER ROLE ... SET synchronous_commit = on)", errNotDurable)
	}
	return nil
}
