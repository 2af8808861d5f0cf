package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/ringmaster-dev/ringmaster/protocol/rest"
)

// DefaultURL is where `orchestrator dev` and `orchestrator serve` listen.
const DefaultURL = "http://127.0.0.1:7070"

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
	maxAnswer  = 256 << 20 // bytes of an answer
)

// Config says which orchestrator to talk to. The zero value works.
type Config struct {
	// URL of the API, without a path; "" is DefaultURL.
	URL string
	// HTTPClient sends the requests; nil is one that keeps enough idle
	// connections for many concurrent starts. It should have no timeout of its
	// own, or one longer than a minute, since waits are long polls.
	HTTPClient *http.Client
	// RequestTimeout bounds one attempt, apart from waits; 0 is 30 s.
	RequestTimeout time.Duration
	// RetryFor bounds how long a request is repeated while the orchestrator is
	// away or at a limit; 0 is 30 s, negative repeats nothing. Only requests
	// that may be repeated safely are.
	RetryFor time.Duration
	// UserAgent names the program; "" is "ringmaster-client".
	UserAgent string
}

// Client talks to one orchestrator. It is safe for concurrent use.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client
}

// New returns a client. It does not connect; it fails for a URL that cannot be
// one of an API.
func New(cfg Config) (*Client, error) {
	if cfg.URL == "" {
		cfg.URL = DefaultURL
	}
	base, err := url.Parse(strings.TrimSuffix(cfg.URL, "/"))
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("client: URL %q: expected http://host:port or https://host:port", cfg.URL)
	}
	if cfg.RequestTimeout == 0 {
		cfg.RequestTimeout = 30 * time.Second
	}
	if cfg.RetryFor == 0 {
		cfg.RetryFor = 30 * time.Second
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "ringmaster-client"
	}
	c := &Client{cfg: cfg, base: base, http: cfg.HTTPClient}
	if c.http == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConns = 512
		transport.MaxIdleConnsPerHost = 512
		c.http = &http.Client{Transport: transport}
	}
	return c, nil
}

// URL is where the client sends its requests.
func (c *Client) URL() string { return c.base.String() }

// CloseIdleConnections closes connections that no request is using.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// call is one request of the API.
type call struct {
	name   string // in errors: what was being done
	method string
	path   string // escaped
	query  url.Values
	body   any // marshalled as JSON; nil is none
	answer any // filled from the answer's JSON; nil reads none
	page   *page
	// once says that the request must not be repeated where it may have been
	// served already.
	once    bool
	timeout time.Duration // of one attempt; 0 is the client's
}

func path(parts ...string) string {
	var b strings.Builder
	b.WriteString("/api/v1")
	for _, p := range parts {
		b.WriteByte('/')
		b.WriteString(strings.ReplaceAll(url.PathEscape(p), "..", "%2E%2E"))
	}
	return b.String()
}

// do sends a request until it is answered, as far as that is safe.
func (c *Client) do(ctx context.Context, k call) error {
	var body []byte
	if k.body != nil {
		var err error
		if body, err = json.Marshal(k.body); err != nil {
			return fmt.Errorf("%s: encode request: %w", k.name, err)
		}
	}
	pauses := backoff.ExponentialBackOff{
		InitialInterval: firstPause, Multiplier: 2, RandomizationFactor: 0.3, MaxInterval: maxPause,
	}
	pauses.Reset()
	for began := time.Now(); ; {
		a := c.attempt(ctx, k, body)
		if a.err == nil || !a.repeat {
			return a.err
		}
		pause := max(pauses.NextBackOff(), a.after)
		if c.cfg.RetryFor < 0 || time.Since(began)+pause > c.cfg.RetryFor {
			return a.err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w (%w)", a.err, context.Cause(ctx))
		case <-timer.C:
		}
	}
}

// attempt is what one attempt came to.
type attempt struct {
	err    error
	repeat bool          // it is safe and sensible to try again
	after  time.Duration // not before this
}

func (c *Client) attempt(ctx context.Context, k call, body []byte) attempt {
	timeout := k.timeout
	if timeout == 0 {
		timeout = c.cfg.RequestTimeout
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	res, err := c.send(limited, k, body)
	if err != nil {
		if ctx.Err() != nil {
			return attempt{err: fmt.Errorf("%s: %w", k.name, context.Cause(ctx))}
		}
		return attempt{
			err:    fmt.Errorf("%s: %w: %w", k.name, ErrUnavailable, withoutURL(err)),
			repeat: !k.once || neverSent(err),
		}
	}
	defer res.Body.Close()
	limit := int64(maxAnswer)
	if k.page != nil {
		limit = maxPage
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, limit))
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return attempt{err: fmt.Errorf("%s: read answer: %w: %w", k.name, ErrUnavailable, err), repeat: !k.once && ctx.Err() == nil}
	}
	if res.StatusCode >= 400 {
		return attempt{
			err:    &refusal{k.name, problemOf(res, answer)},
			repeat: worthRepeating(res.StatusCode, k.once),
			after:  retryAfter(res),
		}
	}
	if k.page != nil {
		k.page.text, k.page.next = answer, res.Header.Get("Ringmaster-Next")
		return attempt{}
	}
	if k.answer == nil {
		return attempt{}
	}
	if err := json.Unmarshal(answer, k.answer); err != nil {
		return attempt{err: fmt.Errorf("%s: the answer is not what this client understands (is %s a Ringmaster API?): %w", k.name, c.URL(), err)}
	}
	return attempt{}
}

func (c *Client) send(ctx context.Context, k call, body []byte) (*http.Response, error) {
	target := c.base.String() + k.path
	if len(k.query) > 0 {
		target += "?" + k.query.Encode()
	}
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, target, reader)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.http.Do(req)
}

// worthRepeating tells whether another attempt may do better. A 429 was
// refused before anything was done, so that it can always be repeated.
func worthRepeating(status int, once bool) bool {
	switch status {
	case http.StatusTooManyRequests:
		return true
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return !once
	}
	return false
}

// neverSent tells that a connection could not be made.
func neverSent(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// withoutURL takes away what the caller knows already.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func retryAfter(res *http.Response) time.Duration {
	seconds, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// problemOf reads a problem document, or makes one of whatever came instead.
func problemOf(res *http.Response, body []byte) *rest.Problem {
	var p rest.Problem
	if strings.HasPrefix(res.Header.Get("Content-Type"), "application/problem+json") &&
		json.Unmarshal(body, &p) == nil && p.Title != "" {
		p.Status = res.StatusCode
		return &p
	}
	p = rest.Problem{Title: http.StatusText(res.StatusCode), Status: res.StatusCode}
	p.Detail = fmt.Sprintf("%s, from something that may not be a Ringmaster API", res.Status)
	return &p
}
