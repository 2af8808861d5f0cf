package api_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/api"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

var update = flag.Bool("update", false, "rewrite testdata")

func serve(t *testing.T, cfg api.Config) *httptest.Server {
	t.Helper()
	h := api.New(cfg)
	server := httptest.NewUnstartedServer(h)
	server.Config.RegisterOnShutdown(h.Drain)
	server.Start()
	t.Cleanup(server.Close)
	return server
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) problem(t *testing.T) rest.Problem {
	t.Helper()
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Fatalf("status %d: Content-Type %q, want a problem document; body %s", a.status, ct, a.body)
	}
	var p rest.Problem
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		t.Fatalf("problem %s: %v", a.body, err)
	}
	if p.Status != a.status {
		t.Fatalf("problem says status %d, the answer %d", p.Status, a.status)
	}
	return p
}

func ask(t *testing.T, method, url, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, b}
}

func TestEveryBadInputIsAProblemThatNamesFieldAndRule(t *testing.T) {
	server := serve(t, api.Config{Service: newMemory(), MaxPayloadBytes: 4096, MaxBatchBytes: 256 << 10})
	ask(t, "POST", server.URL+"/api/v1/runs", `{"workflow":"flow","id":"taken","input":1}`)
	batch := func(n int) string {
		return `{"runs":[` + strings.TrimSuffix(strings.Repeat(`{"workflow":"flow"},`, n), ",") + `]}`
	}
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name, call, body string
		status           int
		code, location   string
		rule             string // part of the first error's message, or of the detail
	}{
		{"not JSON", "POST /api/v1/runs", `{"workflow":`, 400, "malformed_request", "body", "unexpected end of JSON"},
		{"no body", "POST /api/v1/runs", ``, 400, "malformed_request", "", "body is required"},
		{"two values", "POST /api/v1/runs", `{"workflow":"flow"} {}`, 400, "malformed_request", "body", "after top-level value"},
		{"not UTF-8", "POST /api/v1/runs", "{\"workflow\":\"fl\xffow\"}", 400, "malformed_request", "body", "UTF-8"},
		{"not UTF-8 in another route", "POST /api/v1/runs/taken/cancel", "{\"reason\":\"\xff\"}", 400, "malformed_request", "body", "UTF-8"},
		{"an array", "POST /api/v1/runs", `[]`, 422, "invalid_request", "body", "expected object"},
		{"null", "POST /api/v1/runs", `null`, 422, "invalid_request", "body", "expected object"},
		{"unknown field", "POST /api/v1/runs", `{"workflow":"flow","prio":1}`, 422, "invalid_request", "body.prio", "unexpected property"},
		{"no workflow", "POST /api/v1/runs", `{}`, 422, "invalid_request", "body", "workflow"},
		{"empty workflow", "POST /api/v1/runs", `{"workflow":""}`, 422, "invalid_request", "body.workflow", "length >= 1"},
		{"wrong type", "POST /api/v1/runs", `{"workflow":"flow","priority":"high"}`, 422, "invalid_request", "body.priority", "expected integer"},
		{"priority out of range", "POST /api/v1/runs", `{"workflow":"flow","priority":10}`, 422, "invalid_request", "body.priority", "<= 9"},
		{"bad deadline", "POST /api/v1/runs", `{"workflow":"flow","deadline":"tomorrow"}`, 422, "invalid_request", "body.deadline", "date-time"},
		{"tag that is a number", "POST /api/v1/runs", `{"workflow":"flow","tags":{"a":1}}`, 422, "invalid_request", "body.tags.a", "expected string"},
		{"id with a control character", "POST /api/v1/runs", `{"workflow":"flow","id":"a\u0007b"}`, 422, "invalid_request", "body.id", "printable characters without spaces"},
		{"id with a space", "POST /api/v1/runs", `{"workflow":"flow","id":"a b"}`, 422, "invalid_request", "body.id", "printable characters without spaces"},
		{"id of 300 bytes", "POST /api/v1/runs", `{"workflow":"flow","id":"` + long + `"}`, 422, "invalid_request", "body.id", "200"},
		{"id of 300 bytes in 100 characters", "POST /api/v1/runs", `{"workflow":"flow","id":"` + strings.Repeat("€", 100) + `"}`, 422, "invalid_request", "body.id", "200 bytes"},
		{"id of dots", "POST /api/v1/runs", `{"workflow":"flow","id":".."}`, 422, "invalid_request", "body.id", "path"},
		{"unknown workflow", "POST /api/v1/runs", `{"workflow":"nope"}`, 404, "unknown_workflow", "body.workflow", "is registered"},
		{"other input", "POST /api/v1/runs", `{"workflow":"flow","id":"taken","input":2}`, 409, "run_exists", "body.id", "another input"},
		{"too large", "POST /api/v1/runs", `{"workflow":"flow","input":"` + strings.Repeat("x", 80<<10) + `"}`, 413, "body_too_large", "body", "bytes"},
		{"too large for another route", "POST /api/v1/runs/taken/cancel", `{"reason":"` + strings.Repeat("x", 80<<10) + `"}`, 413, "body_too_large", "", "bytes"},
		{"unknown query parameter", "POST /api/v1/runs?dry=1", `{"workflow":"flow"}`, 422, "invalid_request", "query.dry", "unknown query parameter"},
		{"batch of none", "POST /api/v1/runs/batch", batch(0), 422, "invalid_request", "body.runs", ">= 1"},
		{"batch of 1,001", "POST /api/v1/runs/batch", batch(1001), 422, "invalid_request", "body.runs", "<= 1000"},
		{"batch with a bad entry", "POST /api/v1/runs/batch", `{"runs":[{"workflow":"flow"},{"workflow":"flow","id":"a b"}]}`, 422, "invalid_request", "body.runs[1].id", "printable"},
		{"batch with an unknown field", "POST /api/v1/runs/batch", `{"runs":[{"workflow":"flow","x":1}]}`, 422, "invalid_request", "body.runs[0].x", "unexpected property"},
		{"batch that is too large", "POST /api/v1/runs/batch", `{"runs":["` + strings.Repeat("x", 300<<10) + `"]}`, 413, "body_too_large", "body", "bytes"},
		{"unknown run", "GET /api/v1/runs/nope", ``, 404, "unknown_run", "path.id", "no run"},
		{"history of an unknown run", "GET /api/v1/runs/nope/history", ``, 404, "unknown_run", "path.id", "no run"},
		{"wait for an unknown run", "GET /api/v1/runs/nope/wait", ``, 404, "unknown_run", "path.id", "no run"},
		{"path with a control character", "GET /api/v1/runs/a%00b", ``, 422, "invalid_request", "path.id", "printable"},
		{"path of 300 bytes", "GET /api/v1/runs/" + long, ``, 422, "invalid_request", "path.id", "200"},
		{"wait too long", "GET /api/v1/runs/taken/wait?timeout=2m", ``, 422, "invalid_request", "query.timeout", "to 1m"},
		{"wait for nonsense", "GET /api/v1/runs/taken/wait?timeout=soon", ``, 422, "invalid_request", "query.timeout", "duration"},
		{"unknown status", "GET /api/v1/runs?status=done", ``, 422, "invalid_request", "query.status[0]", "one of"},
		{"bad time", "GET /api/v1/runs?since=yesterday", ``, 422, "invalid_request", "query.since", "date/time"},
		{"bad limit", "GET /api/v1/runs?limit=1001", ``, 422, "invalid_request", "query.limit", "<= 1000"},
		{"bad tag", "GET /api/v1/runs?tag=eu", ``, 422, "invalid_request", "query.tag", "name=value"},
		{"bad cursor", "GET /api/v1/runs?cursor=stale", ``, 422, "invalid_request", "query.cursor", "page before"},
		{"misspelt filter", "GET /api/v1/runs?state=stalled", ``, 422, "invalid_request", "query.state", "unknown query parameter"},
		{"unknown step", "POST /api/v1/runs/taken/retry", `{"step":"nope"}`, 404, "unknown_step", "body.step", "no such step"},
		{"unknown field of an order", "POST /api/v1/runs/taken/skip", `{"why":"x"}`, 422, "invalid_request", "body.why", "unexpected property"},
		{"long reason", "POST /api/v1/runs/taken/cancel", `{"reason":"` + strings.Repeat("x", 1001) + `"}`, 422, "invalid_request", "body.reason", "<= 1000"},
		{"items of an unknown run", "GET /api/v1/runs/nope/steps/ship/items", ``, 404, "unknown_run", "path.id", "no run"},
		{"items of an unknown step", "GET /api/v1/runs/taken/steps/pay/items", ``, 404, "unknown_step", "path.step", "no such step"},
		{"items in an unknown state", "GET /api/v1/runs/taken/steps/ship/items?state=done", ``, 422, "invalid_request", "query.state", "one of"},
		{"too many items", "GET /api/v1/runs/taken/steps/ship/items?limit=1001", ``, 422, "invalid_request", "query.limit", "<= 1000"},
		{"signal for an unknown run", "POST /api/v1/runs/none/signals/approval", `{}`, 404, "unknown_run", "path.id", "no such run"},
		{"unknown signal", "POST /api/v1/runs/taken/signals/assent", `{"payload":1}`, 404, "unknown_signal", "path.name", "no step waits"},
		{"signal for an ended run", "POST /api/v1/runs/taken/signals/approval", `{"id":"late"}`, 409, "run_ended", "", "ended"},
		{"signal with a long id", "POST /api/v1/runs/taken/signals/approval", `{"id":"` + long + `"}`, 422, "invalid_request", "body.id", "<= 200"},
		{"signal with another field", "POST /api/v1/runs/taken/signals/approval", `{"name":"approval"}`, 422, "invalid_request", "body.name", "unexpected property"},
		{"signal with a long name", "POST /api/v1/runs/taken/signals/" + long, ``, 422, "invalid_request", "path.name", "64"},
		{"definition without a name", "POST /api/v1/workflows", `{}`, 422, "invalid_workflow", "body.name", "required"},
		{"unknown workflow in a path", "GET /api/v1/workflows/nope", ``, 404, "not_found", "", "nope"},
		{"unknown version", "GET /api/v1/workflows/flow?version=v9", ``, 404, "unknown_version", "query.version", "no such version"},
		{"activate without a version", "POST /api/v1/workflows/flow/activate", `{}`, 422, "invalid_request", "body", "version"},
		{"unknown worker", "POST /api/v1/workers/w9/drain", ``, 404, "unknown_worker", "path.id", "no such worker"},
		{"unknown path", "GET /api/v2/runs", ``, 404, "no_such_route", "", "openapi.json"},
		{"wrong method", "DELETE /api/v1/runs/taken", ``, 405, "method_not_allowed", "", "GET"},
	} {
		t.Run(c.name, func(t *testing.T) {
			method, path, _ := strings.Cut(c.call, " ")
			a := ask(t, method, server.URL+path, c.body)
			if a.status != c.status {
				t.Fatalf("status %d, want %d; body %s", a.status, c.status, a.body)
			}
			p := a.problem(t)
			if p.Code != c.code {
				t.Errorf("code %q, want %q; body %s", p.Code, c.code, a.body)
			}
			said := p.Detail
			if c.location != "" {
				if len(p.Errors) == 0 || p.Errors[0].Location != c.location {
					t.Fatalf("location: want %q; body %s", c.location, a.body)
				}
				said = p.Errors[0].Message
			}
			if !strings.Contains(said, c.rule) {
				t.Errorf("says %q, want %q in it", said, c.rule)
			}
			if len(a.body) > 1024 {
				t.Errorf("the answer has %d bytes: it must not echo the request", len(a.body))
			}
		})
	}
}

func TestMediaTypesThatFormsCanSendAreRefused(t *testing.T) {
	server := serve(t, api.Config{Service: newMemory()})
	for _, path := range []string{"/api/v1/runs", "/api/v1/runs/batch", "/api/v1/runs/a/cancel", "/api/v1/workflows"} {
		a := ask(t, "POST", server.URL+path, `{"workflow":"flow"}`, "Content-Type", "text/plain")
		if p := a.problem(t); a.status != 415 || p.Code != api.CodeMediaType {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

func TestStartAnswers(t *testing.T) {
	server := serve(t, api.Config{Service: newMemory()})
	url := server.URL + "/api/v1/runs"
	first := ask(t, "POST", url, `{"workflow":"flow","id":"o-1","input":{"n":9007199254740993}}`)
	again := ask(t, "POST", url, `{"workflow":"flow","id":"o-1","input":{"n":9007199254740993}}`)
	if first.status != 201 || again.status != 200 {
		t.Fatalf("statuses %d and %d, want 201 and 200", first.status, again.status)
	}
	full := ask(t, "POST", url, `{"workflow":"flow","key":"full"}`)
	if p := full.problem(t); full.status != 429 || full.header.Get("Retry-After") != "2" || p.Code != "too_many_runs" {
		t.Fatalf("overload: %d, Retry-After %q, %s", full.status, full.header.Get("Retry-After"), full.body)
	}
	show := ask(t, "GET", url+"/o-1", "")
	if !bytes.Contains(show.body, []byte(`"input":{"n":9007199254740993}`)) {
		t.Fatalf("the input came back changed: %s", show.body)
	}
}

func TestEveryEntryOfABatchIsAnsweredForItself(t *testing.T) {
	server := serve(t, api.Config{Service: newMemory()})
	for _, way := range []string{"application/json", "application/vnd.own+json"} { // the short way and huma's
		a := ask(t, "POST", server.URL+"/api/v1/runs/batch", `{"runs":[{"workflow":"flow"},{"workflow":"nope"},{"workflow":"flow","key":"full"}]}`, "Content-Type", way)
		var out rest.StartedBatch
		if err := json.Unmarshal(a.body, &out); err != nil || a.status != 200 || len(out.Runs) != 3 {
			t.Fatalf("%d %s, %v", a.status, a.body, err)
		}
		if out.Runs[0].Run == nil || !out.Runs[0].Run.Created {
			t.Errorf("first: %s", a.body)
		}
		if e := out.Runs[1].Error; e == nil || e.Status != 404 || e.Errors[0].Location != "body.runs[1].workflow" {
			t.Errorf("second: %s", a.body)
		}
		if e := out.Runs[2].Error; e == nil || e.Status != 429 || e.Code != "too_many_runs" {
			t.Errorf("third: %s", a.body)
		}
	}
}

func TestIDsWithSlashesCanBeAskedFor(t *testing.T) {
	server := serve(t, api.Config{Service: newMemory()})
	ask(t, "POST", server.URL+"/api/v1/runs", `{"workflow":"flow","id":"a/b//c?d"}`)
	if a := ask(t, "GET", server.URL+"/api/v1/runs/a%2Fb%2F%2Fc%3Fd", ""); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
}

func TestListsAreNeverNull(t *testing.T) {
	server := serve(t, api.Config{Service: newMemory()})
	for path, want := range map[string]string{
		"/api/v1/runs": `"runs":[]`,
		"/api/v1/runs?status=stalled,running&tag=a=b": `"runs":[]`,
		"/api/v1/workers":                `"workers":[]`,
		"/api/v1/locks?name=none":        `"locks":[]`,
		"/api/v1/services/payments/ring": `"members":[]`,
	} {
		if a := ask(t, "GET", server.URL+path, ""); a.status != 200 || !bytes.Contains(a.body, []byte(want)) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

func TestWaitEndsWithTheRunAndWithTheServer(t *testing.T) {
	m := newMemory()
	server := serve(t, api.Config{Service: m})
	ask(t, "POST", server.URL+"/api/v1/runs", `{"workflow":"flow","id":"w"}`)

	if a := ask(t, "GET", server.URL+"/api/v1/runs/w/wait?timeout=0s", ""); !bytes.Contains(a.body, []byte(`"running"`)) {
		t.Fatalf("a wait of no time: %s", a.body)
	}
	<-m.waiting
	waited := make(chan answer)
	go func() { waited <- ask(t, "GET", server.URL+"/api/v1/runs/w/wait", "") }()
	<-m.waiting
	ask(t, "POST", server.URL+"/api/v1/runs/w/cancel", "")
	if a := <-waited; !bytes.Contains(a.body, []byte(`"compensated"`)) {
		t.Fatalf("a wait for a run that ends: %s", a.body)
	}

	ask(t, "POST", server.URL+"/api/v1/runs", `{"workflow":"flow","id":"w2"}`)
	go func() { waited <- ask(t, "GET", server.URL+"/api/v1/runs/w2/wait", "") }()
	<-m.waiting
	if err := server.Config.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := <-waited; a.status != 200 || !bytes.Contains(a.body, []byte(`"running"`)) {
		t.Fatalf("a wait when the server stops: %d %s", a.status, a.body)
	}
}

func TestASignalTellsWhetherItWasReceivedNow(t *testing.T) {
	server := serve(t, api.Config{Service: newMemory()})
	ask(t, "POST", server.URL+"/api/v1/runs", `{"workflow":"flow","id":"s"}`)
	for body, status := range map[string]int{`{"id":"new","payload":{"ok":true}}`: 202, ``: 202, `{"id":"again"}`: 200} {
		a := ask(t, "POST", server.URL+"/api/v1/runs/s/signals/approval", body)
		if a.status != status || !bytes.Contains(a.body, []byte(fmt.Sprintf(`"received":%v`, status == 202))) {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
}

func TestDecisionIsAskedFor(t *testing.T) {
	server := serve(t, api.Config{Service: newMemory()})
	ask(t, "POST", server.URL+"/api/v1/runs", `{"workflow":"flow","id":"saga"}`)
	if a := ask(t, "POST", server.URL+"/api/v1/runs/lost/decision", ""); a.status != 200 || !bytes.Contains(a.body, []byte(`"decision":"aborted"`)) {
		t.Errorf("of a run that there is not: %d %s", a.status, a.body)
	}
	if a := ask(t, "POST", server.URL+"/api/v1/runs/saga/decision", ""); a.problem(t).Code != "no_decision" || a.status != 409 {
		t.Errorf("of a saga: %d %s", a.status, a.body)
	}
	// It may end a run before it is started: no page is fetched ahead with that.
	if a := ask(t, "GET", server.URL+"/api/v1/runs/lost/decision", ""); a.status != 405 {
		t.Errorf("by GET: %d %s", a.status, a.body)
	}
}

func TestInternalErrorsStayInside(t *testing.T) {
	m := newMemory()
	m.fail = errors.New("password=hunter2")
	server := serve(t, api.Config{Service: m})
	a := ask(t, "GET", server.URL+"/api/v1/stats", "")
	if p := a.problem(t); a.status != 500 || p.Code != api.CodeInternal || bytes.Contains(a.body, []byte("hunter2")) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := ask(t, "GET", server.URL+"/healthz", ""); a.status != 200 {
		t.Errorf("healthz: %d", a.status)
	}
	if a := ask(t, "GET", server.URL+"/readyz", ""); a.status != 503 {
		t.Errorf("readyz: %d", a.status)
	}
}

func TestOtherOriginsAndOtherHostsAreRefused(t *testing.T) {
	server := serve(t, api.Config{Service: newMemory(), LoopbackOnly: true})
	for _, c := range []struct {
		name, header, value, code string
	}{
		{"a page of another origin", "Origin", "https://evil.example", api.CodeCrossOrigin},
		{"a name that was bound to loopback", "Host", "evil.example:7070", api.CodeForbiddenHost},
	} {
		a := ask(t, "POST", server.URL+"/api/v1/runs", `{"workflow":"flow"}`, c.header, c.value)
		if p := a.problem(t); a.status != 403 || p.Code != c.code {
			t.Errorf("%s: %d %s", c.name, a.status, a.body)
		}
	}
	if a := ask(t, "GET", server.URL+"/healthz", "", "Host", "localhost:7070"); a.status != 200 {
		t.Errorf("localhost: %d %s", a.status, a.body)
	}
}

func TestMetricsCountByRouteNeverByRun(t *testing.T) {
	registry := prometheus.NewRegistry()
	server := serve(t, api.Config{Service: newMemory(), Registerer: registry, Gatherer: registry})
	ask(t, "POST", server.URL+"/api/v1/runs", `{"workflow":"flow","id":"secret-id"}`)
	ask(t, "GET", server.URL+"/api/v1/runs/secret-id", "")
	a := ask(t, "GET", server.URL+"/metrics", "")
	for _, want := range []string{
		`ringmaster_http_requests_total{route="POST /api/v1/runs",status="201"} 1`,
		`ringmaster_http_requests_total{route="GET /api/v1/runs/{id}",status="200"} 1`,
	} {
		if !bytes.Contains(a.body, []byte(want)) {
			t.Errorf("metrics lack %s:\n%s", want, a.body)
		}
	}
	if bytes.Contains(a.body, []byte("secret-id")) {
		t.Error("a run's id is in the metrics")
	}
}

func TestOpenAPIIsAsPublished(t *testing.T) {
	server := serve(t, api.Config{Service: newMemory()})
	a := ask(t, "GET", server.URL+"/openapi.json", "")
	var got bytes.Buffer
	if err := json.Indent(&got, a.body, "", "  "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	const file = "testdata/openapi.json"
	if *update {
		if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the description differs from %s: run the test with -update and review the change", file)
	}
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct{ OperationID string }
	}
	if err := json.Unmarshal(a.body, &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Fatalf("openapi %q, %v", doc.OpenAPI, err)
	}
	for _, path := range []string{"/api/v1/runs", "/api/v1/runs/batch", "/api/v1/runs/{id}/resolve", "/api/v1/stats"} {
		if len(doc.Paths[path]) == 0 {
			t.Errorf("%s is not described", path)
		}
	}
}

func TestOnlyLoopbackIsListenedOnUnasked(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		if _, err := api.Listen(t.Context(), address, false); !errors.Is(err, api.ErrNotLoopback) {
			t.Errorf("%s: %v", address, err)
		}
	}
	for address, remote := range map[string]bool{"127.0.0.1:0": false, "localhost:0": false, "0.0.0.0:0": true} {
		l, err := api.Listen(t.Context(), address, remote)
		if err != nil {
			t.Errorf("%s: %v", address, err)
			continue
		}
		l.Close()
	}
	if _, err := api.Listen(t.Context(), "7070", false); err == nil || !strings.Contains(err.Error(), "host:port") {
		t.Errorf("no port: %v", err)
	}
}

func ExampleNew() {
	server := httptest.NewServer(api.New(api.Config{Service: newMemory()}))
	defer server.Close()
	res, err := http.Post(server.URL+"/api/v1/runs", "application/json", strings.NewReader(`{"workflow":"flow","id":"order-1"}`))
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(os.Stdout, res.Body)
	fmt.Println(res.Status)
	// Output:
	// {"id":"order-1","workflow":"flow","version":"v1","status":"running","created":true}
	// 201 Created
}
