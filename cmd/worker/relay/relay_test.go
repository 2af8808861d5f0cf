package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ringmaster-dev/ringmaster/cmd/worker/config"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// task reads one task's settings as a file would hold them.
func task(t *testing.T, url, more string) config.Task {
	t.Helper()
	file := fmt.Sprintf("service: deliveries\ntasks:\n  deliveries.ship:\n    url: %s\n%s", url, more)
	cfg, err := config.Parse("test.yaml", []byte(file), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Tasks[0]
}

func newRelay(t *testing.T) *Relay {
	r := New(4, "test", Options{})
	t.Cleanup(r.Close)
	return r
}

// check compares an error with what a result would say.
func check(t *testing.T, err error, outcome protocol.Outcome, retryable bool, code, text string) {
	t.Helper()
	var e *worker.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want a *worker.Error", err)
	}
	if e.Outcome != outcome || e.Retryable != retryable || e.Code != code {
		t.Errorf("outcome %v, retryable %v, code %q; want %v, %v, %q", e.Outcome, e.Retryable, e.Code, outcome, retryable, code)
	}
	if !strings.Contains(err.Error(), text) {
		t.Errorf("error %q, want it to contain %q", err, text)
	}
}

func TestAnswersBecomeOutcomes(t *testing.T) {
	const failed, unknown = protocol.OutcomeFailed, protocol.OutcomeUnknown
	for _, tt := range []struct {
		name      string
		status    int
		body      string
		more      string // settings
		output    string // of a success
		outcome   protocol.Outcome
		retryable bool
		code      string
		text      string
	}{
		{name: "success with a body", status: 200, body: `{"a": 1}`, output: `{"a": 1}`},
		{name: "created", status: 201, body: `7`, output: `7`},
		{name: "success without a body", status: 204},
		{name: "success with blanks", status: 200, body: " \n"},
		{name: "success that is not JSON", status: 200, body: "<html>", outcome: unknown, retryable: true, code: "response_not_json"},
		{name: "success that is too long", status: 200, body: `"12345678"`, more: "    max_response_bytes: 9\n", outcome: unknown, retryable: true, code: "response_too_large"},
		{name: "success just short enough", status: 200, body: `"1234567"`, more: "    max_response_bytes: 9\n", output: `"1234567"`},
		{name: "success that is text", status: 200, body: "say \"OK\"\n", more: "    output: text\n", output: `"say \"OK\"\n"`},
		{name: "success without text", status: 204, more: "    output: text\n", output: `""`},
		{name: "success with too much text", status: 200, body: "12345678", more: "    output: text\n    max_response_bytes: 9\n", outcome: unknown, retryable: true, code: "response_too_large"},
		{name: "success whose body does not matter", status: 200, body: "<html>", more: "    output: none\n    max_response_bytes: 3\n"},
		{name: "accepted made unknown", status: 202, body: "{}", more: "    unknown: [202]\n", outcome: unknown, retryable: true, code: "http_202"},
		{name: "redirect is not followed", status: 307, outcome: unknown, retryable: true, code: "http_307"},
		{name: "bad request", status: 400, body: "no such street\n", outcome: failed, code: "http_400", text: "400 Bad Request: no such street"},
		{name: "conflict with a problem document", status: 409, body: `{"title": "Conflict", "detail": "was recalled"}`, outcome: failed, code: "http_409", text: "was recalled"},
		{name: "not found without a body", status: 404, outcome: failed, code: "http_404", text: "no message"},
		{name: "request timeout", status: 408, outcome: failed, retryable: true, code: "http_408"},
		{name: "too early", status: 425, outcome: failed, retryable: true, code: "http_425"},
		{name: "too many requests", status: 429, outcome: failed, retryable: true, code: "http_429"},
		{name: "unavailable", status: 503, outcome: failed, retryable: true, code: "http_503"},
		{name: "server error", status: 500, body: "boom", outcome: unknown, retryable: true, code: "http_500", text: "boom"},
		{name: "bad gateway", status: 502, outcome: unknown, retryable: true, code: "http_502"},
		{name: "gateway timeout", status: 504, outcome: unknown, retryable: true, code: "http_504"},
		{name: "conflict made a success", status: 409, body: `{}`, more: "    success: [2xx, 409]\n", output: `{}`},
		{name: "conflict made retryable", status: 409, more: "    retry: [409]\n", outcome: failed, retryable: true, code: "http_409"},
		{name: "server error vouched for", status: 500, more: "    retry: [5xx]\n", outcome: failed, retryable: true, code: "http_500"},
		{name: "server error in no list", status: 501, more: "    unknown: []\n", outcome: unknown, retryable: true, code: "http_501"},
		{name: "200 in no list", status: 200, more: "    success: [201]\n", outcome: unknown, retryable: true, code: "http_200"},
		{name: "long message is cut", status: 400, body: strings.Repeat("ä", 5000), outcome: failed, code: "http_400", text: strings.Repeat("ä", maxMessage) + "…"},
		{name: "message without control characters", status: 400, body: "a\x1b[31m\tb\x00", outcome: failed, code: "http_400", text: "a [31m b"},
		{name: "message that is not UTF-8", status: 400, body: "a\xff", outcome: failed, code: "http_400", text: "a?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			followed := false
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/elsewhere" {
					followed = true
					return
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			}))
			defer server.Close()
			out, err := newRelay(t).Handler(task(t, server.URL, tt.more))(t.Context(), []byte(`{}`))
			if followed {
				t.Error("a redirect was followed")
			}
			if tt.code == "" {
				if err != nil || string(out) != tt.output {
					t.Errorf("output %q, error %v; want %q", out, err, tt.output)
				}
				return
			}
			check(t, err, tt.outcome, tt.retryable, tt.code, tt.text)
		})
	}
}

func TestRequestCarriesPayloadAndHeaders(t *testing.T) {
	var got *http.Request
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	}))
	defer server.Close()
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1/") // must not matter
	ctx := worker.WithTask(t.Context(), worker.TaskInfo{
		RunID: "SO-1", Workflow: "order-flow", Step: "deliver", Type: "deliveries.ship",
		Phase: protocol.PhaseAction, Attempt: 3, IdempotencyKey: "SO-1/deliver/action/1",
		Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	})
	settings := task(t, server.URL+"/ship?x=1", "    method: PUT\n    headers: {Authorization: Bearer abc}\n")
	if _, err := newRelay(t).Handler(settings)(ctx, []byte(`{"order":"SO-1"}`)); err != nil {
		t.Fatal(err)
	}
	if got.Method != "PUT" || got.URL.RequestURI() != "/ship?x=1" || string(body) != `{"order":"SO-1"}` {
		t.Errorf("request %s %s %s", got.Method, got.URL, body)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Authorization": "Bearer abc", "User-Agent": "test",
		"Idempotency-Key": "SO-1/deliver/action/1", "RM-Run-Id": "SO-1", "RM-Workflow": "order-flow", "RM-Step": "deliver",
		"RM-Task-Type": "deliveries.ship", "RM-Phase": "action", "RM-Attempt": "3",
		"Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	} {
		if v := got.Header.Get(name); v != want {
			t.Errorf("header %s is %q, want %q", name, v, want)
		}
	}
}

func TestConnectionRefusedHadNoEffect(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	_ = l.Close()
	_, err = newRelay(t).Handler(task(t, url, ""))(t.Context(), nil)
	check(t, err, protocol.OutcomeFailed, true, CodeConnect, "was not sent")
}

func TestConnectionCutAfterTheRequestIsUnknown(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer server.Close()
	_, err := newRelay(t).Handler(task(t, server.URL, ""))(t.Context(), []byte(`{}`))
	check(t, err, protocol.OutcomeUnknown, true, CodeConnection, "no answer")
}

func TestAnswerCutShortIsUnknown(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "{")
	}))
	defer server.Close()
	_, err := newRelay(t).Handler(task(t, server.URL, ""))(t.Context(), nil)
	check(t, err, protocol.OutcomeUnknown, true, CodeConnection, "reading the answer")
}

// stuck is an endpoint that answers only when the caller is gone.
func stuck(t *testing.T) (url string, arrived <-chan struct{}) {
	came := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		came <- struct{}{}
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	return server.URL, came
}

func TestTimeoutAfterTheRequestIsUnknown(t *testing.T) {
	url, _ := stuck(t)
	_, err := newRelay(t).Handler(task(t, url, "    timeout: 50ms\n"))(t.Context(), []byte(`{}`))
	check(t, err, protocol.OutcomeUnknown, true, CodeTimeout, "no answer in time")
}

func TestCancelledCallIsUnknown(t *testing.T) {
	url, arrived := stuck(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	_, err := newRelay(t).Handler(task(t, url, ""))(ctx, []byte(`{}`))
	check(t, err, protocol.OutcomeUnknown, true, CodeConnection, "canceled")
}

func TestTimeoutBeforeTheRequestHadNoEffect(t *testing.T) {
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	_, err := newRelay(t).Handler(task(t, "http://127.0.0.1:9/", ""))(ctx, nil)
	check(t, err, protocol.OutcomeFailed, true, CodeConnect, "was not sent")
}

func TestCallsAreCounted(t *testing.T) {
	status := 200
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer server.Close()
	registry := prometheus.NewRegistry()
	r := New(1, "test", Options{Registerer: registry})
	defer r.Close()
	call := r.Handler(task(t, server.URL, ""))
	for _, status = range []int{200, 204, 400, 503, 500} {
		_, _ = call(t.Context(), nil)
	}
	want := bytes.NewBufferString(`
# HELP ringmaster_relay_calls_total Calls to HTTP endpoints, by task type and what they came to: succeeded, retryable, final or unknown.
# TYPE ringmaster_relay_calls_total counter
ringmaster_relay_calls_total{outcome="final",type="deliveries.ship"} 1
ringmaster_relay_calls_total{outcome="retryable",type="deliveries.ship"} 1
ringmaster_relay_calls_total{outcome="succeeded",type="deliveries.ship"} 2
ringmaster_relay_calls_total{outcome="unknown",type="deliveries.ship"} 1
`)
	if err := testutil.GatherAndCompare(registry, want, "ringmaster_relay_calls_total"); err != nil {
		t.Error(err)
	}
}
