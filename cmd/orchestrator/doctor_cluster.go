package main

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/store/postgres"
)

// serverSettings are what a PostgreSQL server should have, with what to do
// where it has not.
var serverSettings = []struct{ name, want, advice string }{
	{"fsync", "on", "turn fsync on: without it a crash of the server's machine may leave nothing that can be read"},
	{"full_page_writes", "on", "turn full_page_writes on, unless the file system writes whole pages or none: a crash may leave halves"},
	{"autovacuum", "on", "turn autovacuum on: without it tables grow, and in the end the server stops taking writes"},
}

// wantedConnections is what one orchestrator may open.
const wantedConnections = 10

// checkServerSettings looks at the settings and the clock of a PostgreSQL server.
func checkServerSettings(ctx context.Context, db string) finding {
	conn, err := pgx.Connect(ctx, db)
	if err != nil {
		return fail("see the check of the store", "the server cannot be asked: %v", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, want := range serverSettings {
		var have string
		if err := conn.QueryRow(ctx, "SELECT current_setting($1)", want.name).Scan(&have); err != nil {
			return fail("see the server's log", "asking for %s: %v", want.name, err)
		}
		if have != want.want {
			return warn(want.advice, "%s is %s", want.name, have)
		}
	}
	var text string
	var used, reserved int
	err = conn.QueryRow(ctx, `SELECT current_setting('max_connections'), current_setting('superuser_reserved_connections')::int,
		(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')`).Scan(&text, &reserved, &used)
	if err != nil {
		return fail("see the server's log", "counting connections: %v", err)
	}
	most, _ := strconv.Atoi(text) // a setting of this kind is a number
	if left := most - reserved - used; left < wantedConnections {
		return warn("raise max_connections: an orchestrator opens up to nine, and others want some too", "%d connections are left of %d", left, most)
	}
	skew, err := serverSkew(ctx, conn)
	switch {
	case err != nil:
		return fail("see the server's log", "asking for the time: %v", err)
	case skew.Abs() > maxSkew:
		return warn("keep both machines' clocks with NTP; timers, deadlines and the epochs of a restored database depend on them",
			"this machine's clock and the database's are %s apart", render.Duration(skew.Abs()))
	}
	return ok("settings are sound; %d of %d connections are used; its clock is within %s of this machine's", used, most, render.Duration(maxSkew))
}

// serverSkew is how far this machine's clock is ahead of the server's.
func serverSkew(ctx context.Context, conn *pgx.Conn) (time.Duration, error) {
	var their time.Time
	asked := time.Now()
	if err := conn.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&their); err != nil {
		return 0, err
	}
	return asked.Add(time.Since(asked) / 2).Sub(their), nil
}

// checkProvider takes a lease of its own where orchestrators keep theirs.
func checkProvider(ctx context.Context, s settings) finding {
	name := s.Leases
	if name == "" {
		name = s.databases()[0]
		if there, err := postgres.Exists(ctx, s.postgresConfig(name, nil, nil)); err == nil && !there {
			return ok("the database keeps them; what they need is made at the first start")
		}
	}
	const advice = "start what keeps the leases, or correct --leases; without it no orchestrator owns a shard"
	began := time.Now()
	if err := tryLease(ctx, s); err != nil {
		return fail(advice, "%s: %v", maskedDB(name), err)
	}
	return ok("%s grants leases; taking and giving back one takes %s", maskedDB(name), render.Duration(time.Since(began)))
}

func tryLease(ctx context.Context, s settings) (err error) {
	p, err := openLeases(ctx, s, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := p.Close(); err == nil {
			err = closeErr
		}
	}()
	session, err := p.Open(ctx, lock.SessionConfig{Owner: "orchestrator doctor"})
	if err != nil {
		return err
	}
	lease, err := session.TryLock(ctx, "doctor/"+rand.Text())
	if err == nil {
		err = lease.Release(ctx)
	}
	if closeErr := session.Close(ctx); err == nil {
		err = closeErr
	}
	return err
}

// checkBroker asks each node by itself. The broker is up if one is.
func checkBroker(ctx context.Context, s settings) finding {
	urls := s.brokerURLs()
	if len(urls) == 0 {
		return ok("not checked: no --amqp-url; \"orchestrator dev\" needs none")
	}
	type answer struct {
		text string
		err  error
	}
	answers := make([]answer, len(urls))
	done := make(chan int)
	for i, u := range urls {
		go func() {
			answers[i].text, answers[i].err = askBroker(ctx, u)
			done <- i
		}()
	}
	for range urls {
		<-done
	}
	var found []string
	var silent finding // the first that does not answer
	for i, a := range answers {
		var refused *amqp.Error
		switch {
		case a.err == nil:
			found = append(found, a.text)
		case errors.As(a.err, &refused) && refused.Code == amqp.AccessRefused:
			return brokerFailed(urls[i], a.err) // the others would refuse too
		case silent.Result == "":
			silent = brokerFailed(urls[i], a.err)
		default:
			silent.Found += "; " + brokerFailed(urls[i], a.err).Found
		}
	}
	switch {
	case silent.Result == "":
		return ok("%s", strings.Join(found, "; "))
	case len(found) == 0:
		return silent
	}
	return warn("start what is silent, or take it off --amqp-url: work goes on without it, and without one more it may not",
		"%d of %d nodes answer: %s; %s", len(found), len(urls), silent.Found, strings.Join(found, "; "))
}
