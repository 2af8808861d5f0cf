package docstest

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker/rabbit"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine"
	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/worker"
)

var settingPattern = regexp.MustCompile("(?m)^\\| (`[^|]*`) \\| *([^|]*?) *\\|")

// The page lists every setting of the daemon, with its default.
func TestSettingsAreDescribed(t *testing.T) {
	_, section, ok := strings.Cut(read(t, "docs/operations.md"), "## Settings\n")
	if !ok {
		t.Fatal("there is no section on settings")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	described := map[string]string{}
	for _, m := range settingPattern.FindAllStringSubmatch(section, -1) {
		defaults := strings.Split(m[2], ",")
		for i, name := range strings.Split(m[1], ",") {
			described[strings.Trim(name, " `")] = strings.TrimSpace(defaults[i])
		}
	}
	command := exec.CommandContext(t.Context(), "go", "run", "./cmd/orchestrator", "serve", "--print-config")
	command.Dir = root
	// A variable of the machine must not stand for a default.
	command.Env = slices.DeleteFunc(command.Environ(), func(v string) bool { return strings.HasPrefix(v, "RINGMASTER_") })
	var problems bytes.Buffer
	command.Stderr = &problems
	printed, err := command.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &problems)
	}
	for line := range strings.Lines(string(printed)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		text, ok := described[name]
		if !ok {
			t.Errorf("the setting %s is not described", name)
		}
		value = strings.Trim(value, `"`)
		if quoted := strings.Trim(text, "`"); value != quoted && (value != "" || quoted != text) {
			t.Errorf("%s is %q by default, and described as %s", name, value, text)
		}
		delete(described, name)
	}
	for name := range described {
		t.Errorf("there is no setting %s", name)
	}
}

var permissionPattern = regexp.MustCompile(`set_permissions -p \S+ \S+ '([^']*)' '([^']*)' '([^']*)'`)

// A user with the permissions that the page names can do all that an
// orchestrator and a worker do.
func TestRabbitPermissionsSuffice(t *testing.T) {
	m := permissionPattern.FindStringSubmatch(read(t, "docs/operations.md"))
	if m == nil {
		t.Fatal("the page names no permissions")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	b, err := rabbit.New(rabbit.Config{URLs: []string{restrictedUser(ctx, t, m[1], m[2], m[3])}})
	check(t, err)
	store, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(t.TempDir(), "test.db")})
	check(t, err)
	e, err := engine.New(engine.Config{Store: store, Broker: b, RecoveryGrace: -1})
	check(t, err)
	check(t, e.Start(ctx))

	saga := definitions.Saga("docs").Service("s")
	saga.Step("one").Action("do").Pivot()
	w, err := worker.New(worker.Config{Broker: b, Service: "s"})
	check(t, err)
	w.HandleFunc("do", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	working, drain := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(working) }()

	_, err = e.RegisterWorkflow(ctx, saga.MustBuild().JSON())
	check(t, err)
	_, err = e.StartRun(ctx, rest.Start{Workflow: "docs", ID: "one"})
	check(t, err)
	run, err := e.Wait(ctx, "one", time.Minute)
	check(t, err)
	if run.Status != "succeeded" {
		t.Errorf("the run is %s", run.Status)
	}
	drain()
	check(t, <-ended)
	check(t, e.Stop(ctx))
	check(t, store.Close())
}

// restrictedUser makes a user with these permissions only, and returns the
// address under which it logs in.
func restrictedUser(ctx context.Context, t *testing.T, configure, write, read string) string {
	t.Helper()
	node := testenv.RabbitMQ(t)
	if node.ManagementURL == "" {
		node = testenv.PrivateRabbitMQ(t)
	}
	address, err := url.Parse(node.URL)
	check(t, err)
	vhost := strings.TrimPrefix(address.Path, "/")
	if vhost == "" {
		vhost = "/"
	}
	const user, password = "docstest", "docstest"
	manage(ctx, t, node.ManagementURL, http.MethodPut, "/api/users/"+user, `{"password": "`+password+`", "tags": ""}`)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		manage(ctx, t, node.ManagementURL, http.MethodDelete, "/api/users/"+user, "")
	})
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	manage(ctx, t, node.ManagementURL, http.MethodPut, "/api/permissions/"+url.PathEscape(vhost)+"/"+user,
		`{"configure": "`+quote.Replace(configure)+`", "write": "`+quote.Replace(write)+`", "read": "`+quote.Replace(read)+`"}`)
	address.User = url.UserPassword(user, password)
	return address.String()
}

func manage(ctx context.Context, t *testing.T, base, method, path, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, method, base+path, strings.NewReader(body))
	check(t, err)
	answer, err := http.DefaultClient.Do(request)
	check(t, err)
	defer answer.Body.Close()
	if answer.StatusCode >= 300 {
		t.Fatalf("%s %s: %s", method, path, answer.Status)
	}
}
