package api

import (
	"log/slog"
	"net/http"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Default limits of a [Config].
const (
	DefaultMaxPayloadBytes = 1 << 20
	DefaultMaxBatchBytes   = 16 << 20
	// envelopeBytes is what a request may have around its payload.
	envelopeBytes = 64 << 10
	// maxSmallBody bounds the bodies that carry no payload.
	maxSmallBody = 64 << 10
)

// Config says what to serve. Service is required; the other zero values work.
type Config struct {
	Service Service
	// Version of the program, shown in the OpenAPI document; "" is "dev".
	Version string
	// MaxPayloadBytes bounds the body of a request that carries one payload or
	// one definition (plus 64 KiB around it); 0 is 1 MiB.
	MaxPayloadBytes int64
	// MaxBatchBytes bounds the body of a batch; 0 is 16 MiB.
	MaxBatchBytes int64
	// LoopbackOnly refuses requests whose Host is not a name of this machine,
	// so that no web page can reach the API under a name of its own that
	// resolves to a loopback address.
	LoopbackOnly bool
	// Gatherer is what /metrics shows; nil serves no /metrics.
	Gatherer prometheus.Gatherer
	// Registerer takes the API's own metrics; nil keeps none.
	Registerer prometheus.Registerer
	// Logger gets internal errors; nil discards.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Version == "" {
		c.Version = "dev"
	}
	if c.MaxPayloadBytes == 0 {
		c.MaxPayloadBytes = DefaultMaxPayloadBytes
	}
	if c.MaxBatchBytes == 0 {
		c.MaxBatchBytes = DefaultMaxBatchBytes
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Handler serves the API. It is safe for concurrent use.
type Handler struct {
	cfg     Config
	log     *slog.Logger
	svc     Service
	mux     *http.ServeMux
	huma    huma.API
	outer   http.Handler
	metrics *metrics

	drainOnce sync.Once
	draining  chan struct{} // closed: long polls return what they have
}

// New returns the handler of the whole API.
func New(cfg Config) *Handler {
	cfg = cfg.withDefaults()
	h := &Handler{
		cfg:      cfg,
		log:      cfg.Logger,
		svc:      cfg.Service,
		mux:      http.NewServeMux(),
		metrics:  newMetrics(cfg.Registerer),
		draining: make(chan struct{}),
	}
	h.huma = humago.New(h.mux, h.humaConfig())
	h.routeRuns()
	h.routeExport()
	h.routeOrders()
	h.routeWorkflows()
	h.routeWorkers()
	h.routeLocks()
	h.routeHealth()
	// huma describes its own kind of error for every route; asProblem answers
	// with ours, which is described too.
	schemas := h.huma.OpenAPI().Components.Schemas.Map()
	delete(schemas, "ErrorModel")
	delete(schemas, "ErrorDetail")
	if cfg.Gatherer != nil {
		h.mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{}))
	}
	h.outer = h.wrap(http.HandlerFunc(h.dispatch))
	return h
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.outer.ServeHTTP(w, r) }

// Drain makes long polls return at once, so that a server can shut down
// without waiting for them. It may be called more than once.
func (h *Handler) Drain() { h.drainOnce.Do(func() { close(h.draining) }) }

// OpenAPI is the API's description as JSON.
func (h *Handler) OpenAPI() ([]byte, error) { return h.huma.OpenAPI().MarshalJSON() }

func (h *Handler) humaConfig() huma.Config {
	c := huma.DefaultConfig("Ringmaster", h.cfg.Version)
	c.Info.Description = "Starts, shows and settles runs of saga workflows; shows workers and rings. " +
		"Errors are RFC 9457 problem documents with a stable word in `code`."
	c.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	c.OpenAPIPath = "/openapi"
	c.DocsPath = ""
	c.SchemasPath = ""
	c.CreateHooks = nil // no $schema member in the documents
	c.RejectUnknownQueryParameters = true
	c.Transformers = []huma.Transformer{asProblem}
	return c
}
