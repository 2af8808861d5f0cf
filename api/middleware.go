package api

import (
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// serveMux answers everything that has no decoder of its own.
func (h *Handler) serveMux(w http.ResponseWriter, r *http.Request) {
	if _, pattern := h.mux.Handler(r); pattern == "" {
		h.serveNoRoute(w, r)
		return
	}
	if r.Method != http.MethodPost {
		h.mux.ServeHTTP(w, r)
		return
	}
	body, p := readBody(w, r, h.maxStartBody())
	if p != nil {
		p.write(w)
		return
	}
	defer body.release()
	h.serveSlowly(w, r, body.Bytes())
}

// serveNoRoute says in a problem document what the mux says in plain text.
func (h *Handler) serveNoRoute(w http.ResponseWriter, r *http.Request) {
	silent := &statusOnly{header: http.Header{}}
	h.mux.ServeHTTP(silent, r)
	if allow := silent.header.Get("Allow"); silent.status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", allow)
		newProblem(http.StatusMethodNotAllowed, CodeMethodNotAllowed, "this path answers "+allow+" only").write(w)
		return
	}
	newProblem(http.StatusNotFound, CodeNoRoute, "there is no such path; /openapi.json lists those there are").write(w)
}

// statusOnly is a ResponseWriter that keeps no body.
type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header         { return s.header }
func (s *statusOnly) WriteHeader(status int)      { s.status = status }
func (s *statusOnly) Write(b []byte) (int, error) { return len(b), nil }

// wrap puts around a handler what every request goes through.
func (h *Handler) wrap(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		seen := &observed{ResponseWriter: w}
		defer func() {
			if v := recover(); v != nil {
				if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so, too
					panic(v)
				}
				h.log.ErrorContext(r.Context(), "handler panicked", "panic", v, "method", r.Method, "path", r.URL.Path, "stack", string(debug.Stack()))
				if seen.status == 0 {
					newProblem(http.StatusInternalServerError, CodeInternal, "internal error; the orchestrator's log has the cause").write(seen)
				}
			}
			h.metrics.observe(r, seen.status, time.Since(began))
		}()
		if h.cfg.LoopbackOnly && !isLoopbackHost(r.Host) {
			newProblem(http.StatusForbidden, CodeForbiddenHost,
				"this API answers under names of its own machine only, such as localhost or 127.0.0.1").write(seen)
			return
		}
		if err := crossOrigin.Check(r); err != nil {
			newProblem(http.StatusForbidden, CodeCrossOrigin, "requests from pages of another origin are refused").write(seen)
			return
		}
		next.ServeHTTP(seen, r)
	})
}

// isLoopbackHost tells whether a Host header names this machine.
func isLoopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// observed remembers the status of an answer.
type observed struct {
	http.ResponseWriter
	status int
}

func (o *observed) WriteHeader(status int) {
	if o.status == 0 {
		o.status = status
	}
	o.ResponseWriter.WriteHeader(status)
}

func (o *observed) Write(b []byte) (int, error) {
	if o.status == 0 {
		o.status = http.StatusOK
	}
	return o.ResponseWriter.Write(b)
}

// Unwrap serves http.ResponseController.
func (o *observed) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// metrics counts and times requests by route; nil counts nothing.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	if r == nil {
		return nil
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ringmaster_http_requests_total",
			Help: "HTTP requests answered, by route and status.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "ringmaster_http_request_duration_seconds",
			Help:    "Time from a request's header to the end of its answer, by route. Long polls are left out.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}, []string{"route"}),
	}
	r.MustRegister(m.requests, m.seconds)
	return m
}

func (m *metrics) observe(r *http.Request, status int, took time.Duration) {
	if m == nil {
		return
	}
	route := r.Pattern
	if route == "" {
		route = "none"
	}
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	if !strings.HasSuffix(route, "/wait") {
		m.seconds.WithLabelValues(route).Observe(took.Seconds())
	}
}
