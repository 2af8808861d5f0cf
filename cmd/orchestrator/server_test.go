package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
)

// roleBlocks are the statements of the page on operations that make a role.
func roleBlocks(t *testing.T) (owner, runner string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 2 {
		t.Fatalf("the page has %d blocks of SQL", len(blocks))
	}
	return blocks[0][1], blocks[1][1]
}

// asRole has statements of the page carried out on a server, with names of this
// test's own, and returns the address under which the role logs in.
func asRole(t *testing.T, server, statements, role string) (address string) {
	t.Helper()
	admin, err := sqlx.Open("pgx", server)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	database := strings.TrimPrefix(u.Path, "/")
	own := strings.NewReplacer("DATABASE ringmaster", "DATABASE "+database, "ringmaster_run", database+"_run", "ROLE ringmaster ", "ROLE "+database+" ",
		"TO ringmaster;", "TO "+database+";", "AUTHORIZATION ringmaster", "AUTHORIZATION "+database, "FOR ROLE ringmaster ", "FOR ROLE "+database+" ", "…", "secret")
	for s := range strings.Lines(statements) {
		if s = strings.TrimSpace(s); strings.HasPrefix(s, "CREATE DATABASE") || strings.HasPrefix(s, `\`) {
			continue // the test has one
		}
		if _, err := admin.ExecContext(t.Context(), own.Replace(s)); err != nil {
			t.Fatalf("%s: %v", own.Replace(s), err)
		}
	}
	name := strings.ReplaceAll(role, "ringmaster", database)
	u.User = url.UserPassword(name, "secret")
	t.Cleanup(func() { dropRole(t, server, name) })
	return u.String()
}

func dropRole(t *testing.T, server, role string) {
	admin, err := sqlx.Open("pgx", server)
	if err != nil {
		t.Error(err)
		return
	}
	defer admin.Close()
	// What is left of its sessions ends with it.
	for _, s := range []string{
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '" + role + "'",
		"DROP OWNED BY " + role + " CASCADE", "DROP ROLE " + role,
	} {
		if _, err := admin.ExecContext(context.Background(), s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}

// The roles that the page makes can do what an orchestrator does: one that owns
// the schema makes and migrates it, and one that may only read and write runs
// from then on. With less it does not start.
func TestPostgresRolesSufficeAndAreNeeded(t *testing.T) {
	owner, runner := roleBlocks(t)
	server := testenv.Postgres(t)
	d := newDrill(t, asRole(t, server, owner, "ringmaster"))
	d.start()
	d.startWorker()
	d.register()
	d.succeeded(d.startRuns("owner", 3, drillInput{}))
	d.kill()

	d.useDB(asRole(t, server, runner, "ringmaster_run"))
	d.start()
	d.succeeded(d.startRuns("runner", 3, drillInput{}))
	d.check(d.drain())
	d.kill()

	u, err := url.Parse(server)
	d.check(err)
	role := strings.TrimPrefix(u.Path, "/") + "_run"
	admin, err := sqlx.Open("pgx", server)
	d.check(err)
	defer admin.Close()
	for _, right := range []string{"SELECT", "INSERT", "UPDATE"} {
		_, err := admin.ExecContext(d.ctx, fmt.Sprintf("REVOKE %s ON ALL TABLES IN SCHEMA ringmaster FROM %s", right, role))
		d.check(err)
		out, err := exec.CommandContext(d.ctx, "orchestrator", d.serve...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "permission denied") {
			t.Errorf("without %s: %v\n%s", right, err, out)
		}
		_, err = admin.ExecContext(d.ctx, fmt.Sprintf("GRANT %s ON ALL TABLES IN SCHEMA ringmaster TO %s", right, role))
		d.check(err)
	}
}

// A dump is made while runs go on, as the page says; the schema is lost; the
// dump takes its place.
func TestRunsGoOnFromARestoredDump(t *testing.T) {
	d := newDrill(t, testenv.Postgres(t))
	dump := filepath.Join(t.TempDir(), "ringmaster.dump")
	restoreDrill(d, true,
		func() {
			d.postgres("pg_dump", "--format=custom", "--schema=ringmaster", "--file="+dump, "--dbname="+d.db)
		},
		func() {
			d.postgres("psql", "--quiet", "--command=DROP SCHEMA ringmaster CASCADE", "--dbname="+d.db)
			d.postgres("pg_restore", "--exit-on-error", "--single-transaction", "--dbname="+d.db, dump)
		})
}

// postgres runs a program of PostgreSQL's, of the newest version that is there.
func (d *drill) postgres(program string, args ...string) {
	d.t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + program)
	d.check(err)
	if len(found) > 0 {
		slices.Sort(found)
		program = found[len(found)-1]
	}
	if out, err := exec.CommandContext(d.ctx, program, args...).CombinedOutput(); err != nil {
		d.t.Fatalf("%s: %v\n%s", program, err, out)
	}
}
