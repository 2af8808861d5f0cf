// Package relay performs tasks by calling HTTP endpoints.
//
// The endpoint gets the task's payload as its body, and in headers who asks:
// Idempotency-Key, the same on every attempt, under which it must take effect
// once; RM-Run-Id, RM-Workflow, RM-Step, RM-Task-Type, RM-Phase, RM-Attempt;
// RM-Tokens, the fencing tokens as a query (NAME=TOKEN&...); and traceparent. Its answer becomes the task's result, with care for what it
// asserts: a result may only be called failed if the request had no effect.
// Where that cannot be known (the connection broke after the request had gone
// out, the time ran out, a proxy answered 502) the outcome is unknown, and the
// engine asks again under the same key.
package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/ringmaster-dev/ringmaster/cmd/worker/config"
	"github.com/ringmaster-dev/ringmaster/worker"
)

// The codes of results, apart from http_ with the status.
const (
	CodeConnect       = "connect"            // no connection: the request was not sent
	CodeConnection    = "connection"         // the connection broke after the request had gone out
	CodeTimeout       = "timeout"            // no answer in time, after the request had gone out
	CodeTooLarge      = "response_too_large" // a success with more than MaxResponse bytes
	CodeNotJSON       = "response_not_json"  // a success whose body is not JSON
	maxMessage        = 500                  // characters of an error's text
	maxErrorBody      = 16 << 10             // bytes of an error's body that are read
	connectTimeout    = 5 * time.Second
	keepAliveInterval = 15 * time.Second
)

// Relay calls endpoints. It is safe for concurrent use.
type Relay struct {
	client  *http.Client
	agent   string
	metrics *metrics
}

// New returns a Relay that keeps up to concurrency connections to each host.
// Agent is its User-Agent.
func New(concurrency int, agent string, o Options) *Relay {
	dialer := &net.Dialer{Timeout: connectTimeout, KeepAlive: keepAliveInterval}
	return &Relay{
		agent:   agent,
		metrics: newMetrics(o.Registerer),
		client: &http.Client{
			Transport: &http.Transport{
				Proxy:                 nil, // what a variable says must not decide where money is charged
				DialContext:           dialer.DialContext,
				TLSHandshakeTimeout:   connectTimeout,
				MaxIdleConnsPerHost:   concurrency,
				IdleConnTimeout:       time.Minute,
				ExpectContinueTimeout: time.Second,
				ForceAttemptHTTP2:     true,
				DisableCompression:    true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close closes connections that are not in use.
func (r *Relay) Close() { r.client.CloseIdleConnections() }

// Handler returns the handler of tasks of t's type.
func (r *Relay) Handler(t config.Task) worker.HandlerFunc {
	return func(ctx context.Context, payload []byte) ([]byte, error) {
		begin := time.Now()
		out, err := r.call(ctx, &t, payload)
		r.metrics.observe(t.Type, err, time.Since(begin))
		return out, err
	}
}

func (r *Relay) call(ctx context.Context, t *config.Task, payload []byte) ([]byte, error) {
	if t.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.Timeout)
		defer cancel()
	}
	// Once there is a connection, bytes of the request may have gone out.
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	req, err := r.request(ctx, t, payload)
	if err != nil {
		return nil, worker.Final("bad_request", err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, broken(err, sent.Load())
	}
	defer func() { _ = resp.Body.Close() }()
	if t.Success.Has(resp.StatusCode) {
		return output(resp.Body, t)
	}
	return nil, refused(t, resp)
}

func (r *Relay) request(ctx context.Context, t *config.Task, payload []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, t.Method, t.URL.String(), bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	req.Header = t.Headers.Clone()
	task := worker.TaskFrom(ctx)
	onePhase := ""
	if task.OnePhase {
		onePhase = "true"
	}
	for name, value := range map[string]string{
		"Content-Type":    "application/json",
		"Idempotency-Key": task.IdempotencyKey,
		"RM-Run-Id":       task.RunID,
		"RM-Workflow":     task.Workflow,
		"RM-Step":         task.Step,
		"RM-Task-Type":    task.Type,
		"RM-Phase":        task.Phase.String(),
		"RM-Attempt":      strconv.FormatUint(uint64(task.Attempt), 10),
		"RM-One-Phase":    onePhase,
		"RM-Tokens":       tokens(task),
		"Traceparent":     task.Trace,
	} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", r.agent)
	}
	return req, nil
}

// tokens are the task's fencing tokens as a query: NAME=TOKEN&...
func tokens(task worker.TaskInfo) string {
	v := make(url.Values, len(task.Tokens))
	for _, t := range task.Tokens {
		v.Set(t.Name, strconv.FormatUint(t.Token, 10))
	}
	return v.Encode()
}

// broken judges a call without an answer.
func broken(err error, sent bool) error {
	var timeout net.Error
	switch {
	case !sent:
		return worker.NoEffect(worker.Retryable(CodeConnect, fmt.Errorf("the request was not sent: %w", err)))
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return worker.Unknown(CodeTimeout, fmt.Errorf("no answer in time: %w", err))
	default:
		return worker.Unknown(CodeConnection, fmt.Errorf("no answer: %w", err))
	}
}

// output makes the step's output of the body of a success. The endpoint has
// done its work, so nothing here may call the attempt failed.
func output(body io.Reader, t *config.Task) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, t.MaxResponse+1))
	if t.Output == config.OutputNone {
		return nil, nil // also where it is too long, or broke off
	}
	if err == nil && t.Output == config.OutputText {
		data, err = json.Marshal(string(data))
	}
	switch {
	case err != nil:
		return nil, broken(fmt.Errorf("reading the answer: %w", err), true)
	case int64(len(data)) > t.MaxResponse:
		return nil, worker.Unknown(CodeTooLarge, fmt.Errorf("the answer is longer than %d bytes", t.MaxResponse))
	case len(bytes.TrimSpace(data)) == 0:
		return nil, nil
	case !json.Valid(data):
		return nil, worker.Unknown(CodeNotJSON, errors.New("the answer is not JSON; for endpoints that answer otherwise set output to text or none"))
	}
	return data, nil
}

// refused judges an answer other than success.
func refused(t *config.Task, resp *http.Response) error {
	code := "http_" + strconv.Itoa(resp.StatusCode)
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // a part will do
	err := fmt.Errorf("%s: %s", resp.Status, message(data))
	switch {
	case t.Retry.Has(resp.StatusCode):
		return worker.Retryable(code, err)
	case t.Unknown.Has(resp.StatusCode) || resp.StatusCode/100 != 4:
		return worker.Unknown(code, err)
	default:
		return worker.Final(code, err)
	}
}

// message takes from an error's body what people can read: the detail of a
// problem document or a like field, or else its text.
func message(body []byte) string {
	var fields map[string]any
	text := string(body)
	if json.Unmarshal(body, &fields) == nil {
		for _, name := range []string{"detail", "message", "error", "title"} {
			if s, ok := fields[name].(string); ok && s != "" {
				text = s
				break
			}
		}
	}
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "?"), func(c rune) bool {
		return unicode.IsSpace(c) || unicode.IsControl(c)
	}), " ")
	if text == "" {
		return "no message"
	}
	if runes := []rune(text); len(runes) > maxMessage {
		return string(runes[:maxMessage]) + "…"
	}
	return text
}
