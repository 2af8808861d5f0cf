package docstest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/worker"
	"github.com/ringmaster-dev/ringmaster/worker/outbox"
)

// permissions are a user's on RabbitMQ, as regular expressions on names.
type permissions struct {
	Configure string `json:"configure"`
	Write     string `json:"write"`
	Read      string `json:"read"`
}

var permissionPattern = regexp.MustCompile(`set_permissions -p \S+ (\S+) '([^']*)' '([^']*)' '([^']*)'`)

// permissionsOf reads them from a page or a script, by user.
func permissionsOf(t *testing.T, path string) map[string]permissions {
	t.Helper()
	found := map[string]permissions{}
	for _, m := range permissionPattern.FindAllStringSubmatch(read(t, path), -1) {
		found[m[1]] = permissions{m[2], m[3], m[4]}
	}
	for _, user := range []string{"orchestrator", "worker", "application"} {
		if _, ok := found[user]; !ok {
			t.Fatalf("%s gives no permissions to the user %s", path, user)
		}
	}
	return found
}

// users makes users on RabbitMQ and says how they log in.
type users struct {
	t    *testing.T
	ctx  context.Context
	node *testenv.Rabbit
}

func newUsers(t *testing.T) users {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	node := testenv.RabbitMQ(t)
	if node.ManagementURL == "" {
		node = testenv.PrivateRabbitMQ(t)
	}
	return users{t, ctx, node}
}

func (u users) add(p permissions) (address string) {
	u.t.Helper()
	at, err := url.Parse(u.node.URL)
	check(u.t, err)
	vhost := strings.TrimPrefix(at.Path, "/")
	if vhost == "" {
		vhost = "/"
	}
	name := "docstest-" + strings.ToLower(rand.Text()[:8])
	u.manage(u.ctx, http.MethodPut, "/api/users/"+name, map[string]string{"password": name, "tags": ""})
	u.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		u.manage(ctx, http.MethodDelete, "/api/users/"+name, nil)
	})
	u.manage(u.ctx, http.MethodPut, "/api/permissions/"+url.PathEscape(vhost)+"/"+name, p)
	at.User = url.UserPassword(name, name)
	return at.String()
}

func (u users) manage(ctx context.Context, method, path string, body any) {
	u.t.Helper()
	b, err := json.Marshal(body)
	check(u.t, err)
	request, err := http.NewRequestWithContext(ctx, method, u.node.ManagementURL+path, strings.NewReader(string(b)))
	check(u.t, err)
	answer, err := http.DefaultClient.Do(request)
	check(u.t, err)
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		u.t.Fatalf("%s %s: %s", method, path, answer.Status)
	}
}

// flow has an orchestrator, a worker and an application, each as a user of its
// own, carry out a run that the application starts by way of its outbox and
// whose decision the worker asks for.
func flow(ctx context.Context, t *testing.T, orchestrator, works, application string) (err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	store, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(t.TempDir(), "test.db")})
	check(t, err)
	defer store.Close()
	e, err := engine.New(engine.Config{Store: store, Broker: connect(t, orchestrator), RecoveryGrace: -1})
	check(t, err)
	if err := e.Start(ctx); err != nil {
		return fmt.Errorf("orchestrator: %w", err)
	}
	defer func() { check(t, e.Stop(context.WithoutCancel(ctx))) }()
	saga := definitions.Saga("docs").Service("s")
	saga.Step("one").Action("do").Pivot()
	_, err = e.RegisterWorkflow(ctx, saga.MustBuild().JSON())
	check(t, err)
	w, err := worker.New(worker.Config{Broker: connect(t, works), Service: "s", Workflows: []*definitions.Workflow{saga.MustBuild()}})
	check(t, err)
	w.HandleFunc("do", func(ctx context.Context, _ []byte) ([]byte, error) {
		_, err := w.Decision(ctx, "never-started")
		return nil, err
	})
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	applies := connect(t, application)
	done := make(chan error, 1)
	go func() { done <- startAndWait(ctx, t, e, applies) }()
	select {
	case err := <-ended:
		cancel()
		<-done
		return fmt.Errorf("worker: %w", err)
	case err := <-done:
		cancel()
		<-ended
		return err
	}
}

// startAndWait starts the run as an application does, and waits for its end.
func startAndWait(ctx context.Context, t *testing.T, e *engine.Engine, application broker.Broker) error {
	db, err := sqlx.Open("sqlite3", filepath.Join(t.TempDir(), "app.db"))
	if err != nil {
		return err
	}
	defer db.Close()
	box, err := outbox.New(ctx, db, outbox.SQLite, outbox.Options{})
	if err != nil {
		return err
	}
	err = box.Do(ctx, func(ctx context.Context, tx *sqlx.Tx) error {
		_, err := box.Start(ctx, tx, rest.Start{Workflow: "docs", ID: "one"})
		return err
	})
	if err != nil {
		return err
	}
	relaying, stop := context.WithCancel(ctx)
	relayed := make(chan error, 1)
	go func() { relayed <- outbox.NewRelay(box, application).Run(relaying) }()
	defer stop()
	for {
		run, err := e.Wait(ctx, "one", time.Minute)
		if err == nil && run.Status == "succeeded" {
			stop()
			<-relayed
			return nil
		}
		select {
		case err := <-relayed:
			return fmt.Errorf("application: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func connect(t *testing.T, address string) broker.Broker {
	t.Helper()
	b, err := rabbit.New(rabbit.Config{URLs: []string{address}})
	check(t, err)
	return b
}

// Users with the permissions that the page names can do all that an
// orchestrator, a worker and an application do, and with less they cannot.
func TestRabbitPermissionsSufficeAndAreNeeded(t *testing.T) {
	u := newUsers(t)
	page := permissionsOf(t, "docs/operations.md")
	who := []string{"orchestrator", "worker", "application"}
	full := map[string]string{}
	for _, name := range who {
		full[name] = u.add(page[name])
	}
	check(t, flow(u.ctx, t, full["orchestrator"], full["worker"], full["application"]))
	for _, name := range who {
		p := page[name]
		for kind, less := range map[string]permissions{
			"configure": {"^$", p.Write, p.Read}, "write": {p.Configure, "^$", p.Read}, "read": {p.Configure, p.Write, "^$"},
		} {
			if less == p {
				continue // it needs nothing of this kind
			}
			as := map[string]string{"orchestrator": full["orchestrator"], "worker": full["worker"], "application": full["application"]}
			as[name] = u.add(less)
			// Most say so at once; a relay goes on trying.
			short, cancel := context.WithTimeout(u.ctx, 2*time.Second)
			if err := flow(short, t, as["orchestrator"], as["worker"], as["application"]); err == nil {
				t.Errorf("%s works without the permission to %s", name, kind)
			}
			cancel()
		}
	}
}

// What a user's permissions are for is also what they keep it from.
func TestRabbitPermissionsKeepUsersApart(t *testing.T) {
	u := newUsers(t)
	page := permissionsOf(t, "docs/operations.md")
	full := map[string]string{}
	for name, p := range page {
		full[name] = u.add(p)
	}
	check(t, flow(u.ctx, t, full["orchestrator"], full["worker"], full["application"])) // makes exchanges and queues
	declare := func(queue string) func(*amqp.Channel) error {
		return func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare(queue, false, true, true, false, nil)
			return err
		}
	}
	consume := func(queue string) func(*amqp.Channel) error {
		return func(ch *amqp.Channel) error {
			_, err := ch.ConsumeWithContext(u.ctx, queue, "", false, false, false, false, nil)
			return err
		}
	}
	listen := func(queue, exchange string) func(*amqp.Channel) error {
		return func(ch *amqp.Channel) error {
			check(t, declare(queue)(ch))
			return ch.QueueBind(queue, "shard.0", exchange, false, nil)
		}
	}
	publish := func(exchange string) func(*amqp.Channel) error {
		return func(ch *amqp.Channel) error {
			closed := ch.NotifyClose(make(chan *amqp.Error, 1))
			check(t, ch.PublishWithContext(u.ctx, exchange, "shard.0", false, false, amqp.Publishing{}))
			// The refusal of a publish comes before the answer to what follows it.
			if err := ch.Tx(); err != nil {
				return <-closed
			}
			return nil
		}
	}
	for _, tt := range []struct {
		who, what string
		do        func(*amqp.Channel) error
	}{
		{"worker", "take requests", consume("ringmaster.requests")},
		{"worker", "take dead letters", consume("ringmaster.deadletters")},
		{"worker", "read others' results", listen("ringmaster.worker.x", "ringmaster.results")},
		{"worker", "read others' heartbeats", listen("ringmaster.worker.y", "ringmaster.heartbeats")},
		{"worker", "speak as an orchestrator", publish("ringmaster.announcements")},
		{"worker", "make an orchestrator's queue", declare("ringmaster.results.x")},
		{"worker", "enter another namespace", declare("other.worker.x")},
		{"orchestrator", "make a worker's queue", declare("ringmaster.worker.x")},
		{"orchestrator", "enter another namespace", declare("other.results.x")},
		{"application", "take requests", consume("ringmaster.requests")},
		{"application", "make another queue", declare("ringmaster.worker.x")},
		{"application", "answer as a worker", publish("ringmaster.results")},
		{"application", "speak as a worker", publish("ringmaster.heartbeats")},
	} {
		conn, err := amqp.Dial(full[tt.who])
		check(t, err)
		ch, err := conn.Channel()
		check(t, err)
		var refused *amqp.Error
		if err := tt.do(ch); !errors.As(err, &refused) || refused.Code != amqp.AccessRefused {
			t.Errorf("%s: %s: %v; want it refused", tt.who, tt.what, err)
		}
		check(t, conn.Close())
	}
}

// The files for deployments give the permissions that the page names.
func TestDeployedPermissionsAreThoseOfThePage(t *testing.T) {
	page, script := permissionsOf(t, "docs/operations.md"), permissionsOf(t, "deploy/compose/rabbitmq-users.sh")
	for user, p := range page {
		if script[user] != p {
			t.Errorf("the script gives %s %+v, and the page %+v", user, script[user], p)
		}
	}
}
