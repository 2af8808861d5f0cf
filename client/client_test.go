package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// script answers requests in turn, without a network, so that time can be the
// test's own. The last answer is repeated.
type script struct {
	answers []answer
	calls   []string // METHOD path?query body
	at      []time.Time
}

type answer struct {
	status     int
	retryAfter string
	body       any
	err        error
	forgets    time.Duration // lets this pass first
}

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	body := ""
	if r.Body != nil {
		b, _ := io.ReadAll(r.Body)
		body = " " + string(b)
	}
	a := s.answers[min(len(s.calls), len(s.answers)-1)]
	s.calls = append(s.calls, r.Method+" "+r.URL.RequestURI()+body)
	s.at = append(s.at, time.Now())
	if a.forgets > 0 {
		select {
		case <-time.After(a.forgets):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	if a.err != nil {
		return nil, a.err
	}
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", "application/json")
	if a.status >= 400 {
		w.Header().Set("Content-Type", "application/problem+json")
	}
	if a.retryAfter != "" {
		w.Header().Set("Retry-After", a.retryAfter)
	}
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(a.body)
	return w.Result(), nil
}

func newClient(t *testing.T, answers ...answer) (*client.Client, *script) {
	t.Helper()
	s := &script{answers: answers}
	c, err := client.New(client.Config{HTTPClient: &http.Client{Transport: s}})
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func refuse(status int, code string) answer {
	return answer{status: status, body: rest.Problem{Title: http.StatusText(status), Status: status, Code: code, Detail: "because"}}
}

func TestAStartWithoutIDIsRepeatedUnderOneID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newClient(t,
			answer{err: errors.New("connection reset")},
			answer{status: 503, retryAfter: "3", body: rest.Problem{Title: "Service Unavailable", Status: 503}},
			answer{status: 200, body: rest.Started{ID: "x", Created: false}},
		)
		started, err := c.StartRun(t.Context(), rest.Start{Workflow: "flow"})
		if err != nil || !started.Created {
			t.Fatalf("%+v, %v", started, err)
		}
		if len(s.calls) != 3 || s.calls[0] != s.calls[1] || s.calls[1] != s.calls[2] || !strings.Contains(s.calls[0], `"id":"`) {
			t.Fatalf("calls:\n%s", strings.Join(s.calls, "\n"))
		}
		if pause := s.at[2].Sub(s.at[1]); pause < 3*time.Second {
			t.Errorf("came back after %v, although Retry-After was 3 s", pause)
		}
	})
}

func TestOrdersThatMayHaveBeenServedAreNotRepeated(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for _, c := range []struct {
		name   string
		answer answer
		calls  int
	}{
		{"lost answer", answer{err: errors.New("connection reset")}, 1},
		{"unavailable", refuse(503, "unavailable"), 1},
		{"refused for load", refuse(429, "full"), 2},
		{"never sent", answer{err: dial}, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			cl, s := newClient(t, c.answer, answer{status: 200, body: rest.Run{ID: "a"}})
			_, err := cl.Skip(t.Context(), "a", rest.Settle{Reason: "done by hand"})
			if len(s.calls) != c.calls || (err == nil) != (c.calls == 2) {
				t.Errorf("%s: %d calls, %v", c.name, len(s.calls), err)
			}
		})
	}
}

func TestASignalIsRepeatedUnderOneID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for id, received := range map[string]bool{"": true, "ticket-17": false} {
			c, s := newClient(t, answer{err: errors.New("connection reset")}, answer{status: 200, body: rest.Signalled{Received: false, Run: rest.Run{ID: "a b"}}})
			out, err := c.Signal(t.Context(), "a b", "approval", rest.Signal{ID: id, Payload: json.RawMessage(`{"ok":true}`)})
			if err != nil || out.Received != received || out.Run.ID != "a b" {
				t.Errorf("%+v, %v", out, err)
			}
			if len(s.calls) != 2 || s.calls[0] != s.calls[1] || !strings.Contains(s.calls[0], `"id":"`+id) ||
				!strings.HasPrefix(s.calls[0], "POST /api/v1/runs/a%20b/signals/approval ") {
				t.Errorf("calls:\n%s", strings.Join(s.calls, "\n"))
			}
		}
	})
}

func TestDecisionMayBeAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := newClient(t, answer{err: errors.New("connection reset")}, answer{status: 200, body: rest.Decision{ID: "a b", Decision: "committed"}})
		d, err := c.Decision(t.Context(), "a b")
		if err != nil || d.Decision != "committed" || len(s.calls) != 2 || s.calls[1] != "POST /api/v1/runs/a%20b/decision" {
			t.Errorf("%+v, %v, after %q", d, err, s.calls)
		}
	})
}

func TestErrorsCanBeToldApart(t *testing.T) {
	for status, want := range map[int]error{
		400: client.ErrInvalid, 422: client.ErrInvalid, 404: client.ErrNotFound, 409: client.ErrConflict,
		413: client.ErrTooLarge, 429: client.ErrOverloaded, 503: client.ErrUnavailable,
	} {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newClient(t, refuse(status, "some_code"))
			_, err := c.Get(t.Context(), "a")
			var p *rest.Problem
			if !errors.Is(err, want) || !errors.As(err, &p) || p.Code != "some_code" {
				t.Errorf("%d: %v", status, err)
			}
			if !strings.Contains(err.Error(), "because") || !strings.Contains(err.Error(), "run a") {
				t.Errorf("%d: %q does not say what was done and why not", status, err)
			}
		})
	}
	c, _ := newClient(t, answer{status: 200, body: "<html>"})
	if _, err := c.Get(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "Ringmaster API") {
		t.Errorf("an answer from something else: %v", err)
	}
}

func TestOutagesAreRepeatedForABoundedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient(t, answer{err: syscall.ECONNREFUSED})
		began := time.Now()
		_, err := c.Get(t.Context(), "a")
		if took := time.Since(began); !errors.Is(err, client.ErrUnavailable) || !errors.Is(err, syscall.ECONNREFUSED) || took > 30*time.Second || took < 20*time.Second {
			t.Fatalf("%v after %v", err, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Get(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("with a deadline: %v", err)
		}
	})
}

func TestWaitPollsUntilTheRunHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running := answer{status: 200, body: rest.Run{ID: "a/b", Status: "running"}, forgets: 30 * time.Second}
		c, s := newClient(t, running, running,
			answer{status: 200, body: rest.Run{Status: "stalled"}},
			answer{err: syscall.ECONNREFUSED},
			answer{status: 200, body: rest.Run{Status: "succeeded"}},
			answer{status: 200, body: rest.RunDetail{Run: rest.Run{Status: "succeeded"}, Output: json.RawMessage(`{"total":7}`)}},
		)
		run, err := c.Wait(t.Context(), "a/b")
		if err != nil || string(run.Output) != `{"total":7}` {
			t.Fatalf("%+v, %v", run, err)
		}
		if s.calls[0] != "GET /api/v1/runs/a%2Fb/wait?timeout=30s" || s.calls[len(s.calls)-1] != "GET /api/v1/runs/a%2Fb" {
			t.Errorf("calls:\n%s", strings.Join(s.calls, "\n"))
		}
		if pause := s.at[3].Sub(s.at[2]); pause < time.Second {
			t.Errorf("a stalled run was asked for again after %v", pause)
		}
	})
}

type order struct{ Total int }
type receipt struct{ Number string }

func flow(t *testing.T) definitions.TypedWorkflow[order, receipt] {
	t.Helper()
	b := definitions.Saga("flow").Service("orders")
	b.Step("create").Action("orders.create").Compensation("orders.cancel")
	wf, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return definitions.Typed[order, receipt](wf)
}

func TestATypedStartRegistersAWorkflowThatIsUnknown(t *testing.T) {
	c, s := newClient(t,
		refuse(404, "unknown_workflow"),
		answer{status: 201, body: rest.Workflow{Name: "flow"}},
		answer{status: 201, body: rest.Started{ID: "o-1", Created: true}},
		answer{status: 200, body: rest.Run{Status: "succeeded"}},
		answer{status: 200, body: rest.RunDetail{Run: rest.Run{Status: "succeeded"}, Output: json.RawMessage(`{"Number":"r-9"}`)}},
	)
	run, err := client.Start(t.Context(), c, flow(t), order{Total: 3}, client.ID("o-1"), client.Tag("region", "eu"), client.Priority(2), client.Key("c-7"))
	if err != nil {
		t.Fatal(err)
	}
	if want := `POST /api/v1/runs {"workflow":"flow","id":"o-1","input":{"Total":3},"key":"c-7","priority":2,"tags":{"region":"eu"}}`; s.calls[2] != want {
		t.Errorf("start was\n%s, want\n%s", s.calls[2], want)
	}
	result, err := run.Wait(t.Context())
	if err != nil || result.Output.Number != "r-9" {
		t.Fatalf("%+v, %v", result, err)
	}
}

func TestATypedWaitTellsHowARunEnded(t *testing.T) {
	detail := rest.RunDetail{Run: rest.Run{ID: "o-1", Status: "compensated", FailedStep: "pay", Error: "card_declined: no"}}
	c, _ := newClient(t, answer{status: 200, body: detail})
	_, err := client.HandleOf(c, flow(t), "o-1").Wait(t.Context())
	var ended *client.EndedError
	if !errors.Is(err, client.ErrNotSucceeded) || !errors.As(err, &ended) || ended.Run.FailedStep != "pay" {
		t.Fatal(err)
	}
	if want := "run o-1 ended as compensated after step pay failed: card_declined: no"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}

func TestEndedAtLeavesOutWhatHasNotEnded(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	c, s := newClient(t,
		answer{status: 200, body: rest.Run{ID: "ended", Status: "succeeded", Ended: &at}},
		answer{status: 200, body: rest.Run{ID: "removed", Status: "aborted", Ended: &at, Removed: &at}},
		answer{status: 200, body: rest.Run{ID: "runs", Status: "running"}},
		refuse(404, "unknown_run"),
	)
	ended, err := c.EndedAt(t.Context(), []string{"ended", "removed", "runs", "unknown"})
	if err != nil || fmt.Sprint(ended) != fmt.Sprint(map[string]time.Time{"ended": at, "removed": at}) {
		t.Errorf("%v, %v", ended, err)
	}
	if want := "GET /api/v1/runs/removed/wait?timeout=0s"; s.calls[1] != want {
		t.Errorf("%s, want %s", s.calls[1], want)
	}
}

func TestListsGoThroughAllPages(t *testing.T) {
	c, s := newClient(t,
		answer{status: 200, body: rest.RunPage{Runs: []rest.Run{{ID: "c"}, {ID: "b"}}, Next: "2"}},
		answer{status: 200, body: rest.RunPage{Runs: []rest.Run{{ID: "a"}}}},
	)
	var ids []string
	for run, err := range c.All(t.Context(), client.Filter{Statuses: []string{"stalled", "running"}, Tag: "region=eu", Limit: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, run.ID)
	}
	if fmt.Sprint(ids) != "[c b a]" {
		t.Error(ids)
	}
	if want := "GET /api/v1/runs?cursor=2&limit=2&status=stalled%2Crunning&tag=region%3Deu"; s.calls[1] != want {
		t.Errorf("%s, want %s", s.calls[1], want)
	}
}

func TestBatchesLargerThanOneRequestAreDivided(t *testing.T) {
	c, s := newClient(t, answer{status: 200, body: rest.StartedBatch{Runs: []rest.StartOutcome{{Run: &rest.Started{ID: "x"}}}}})
	outcomes, err := c.StartBatch(t.Context(), make([]rest.Start, 1001))
	if err != nil || len(outcomes) != 2 || len(s.calls) != 2 || !outcomes[0].Run.Created {
		t.Fatalf("%d outcomes, %d calls, %v", len(outcomes), len(s.calls), err)
	}
}

func TestURLsThatCannotBeAnAPIAreRefused(t *testing.T) {
	for _, u := range []string{"127.0.0.1:7070", "ftp://host", "http://", "::"} {
		if _, err := client.New(client.Config{URL: u}); err == nil {
			t.Errorf("%q was taken", u)
		}
	}
}
