package config

import (
	"cmp"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Parse reads a configuration from data; file is used in faults. The error is
// an [*Invalid].
func Parse(file string, data []byte, lookup func(string) (string, bool)) (*Config, error) {
	r := &reader{file: file, lookup: lookup}
	cfg := &Config{
		Namespace:    DefaultNamespace,
		Concurrency:  DefaultConcurrency,
		Weight:       DefaultWeight,
		DrainTimeout: DefaultDrainTimeout,
	}
	tree, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, &Invalid{Faults: []Fault{syntaxFault(file, err)}}
	}
	switch {
	case len(tree.Docs) > 1:
		r.fault(tree.Docs[1].Body, "", "the file holds more than one document")
	case len(tree.Docs) == 0 || tree.Docs[0].Body == nil:
		r.fault(nil, "", "the file is empty: it needs at least service and tasks")
	default:
		r.config(tree.Docs[0].Body, cfg)
	}
	if len(r.faults) > 0 {
		slices.SortStableFunc(r.faults, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
		return nil, &Invalid{Faults: r.faults}
	}
	return cfg, nil
}

func syntaxFault(file string, err error) Fault {
	f := Fault{File: file, Line: 1, Rule: "not YAML: " + err.Error()}
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) {
		f.Rule = "not YAML: " + syntax.Message
		if syntax.Token != nil && syntax.Token.Position != nil {
			f.Line = syntax.Token.Position.Line
		}
	}
	return f
}

func (r *reader) config(n ast.Node, cfg *Config) {
	seen := r.mapping(n, "", map[string]field{
		"amqp_url": func(n ast.Node, at string) {
			cfg.AMQPURL = r.text(n, at)
			if rule := CheckAMQPURL(cfg.AMQPURL); rule != "" && cfg.AMQPURL != "" {
				r.fault(n, at, "%s", rule)
			}
		},
		"namespace":     func(n ast.Node, at string) { cfg.Namespace = r.name(n, at) },
		"service":       func(n ast.Node, at string) { cfg.Service = r.name(n, at) },
		"name":          func(n ast.Node, at string) { cfg.Name = r.name(n, at) },
		"concurrency":   func(n ast.Node, at string) { cfg.Concurrency = int(r.integer(n, at, 1, MaxConcurrency)) },
		"weight":        func(n ast.Node, at string) { cfg.Weight = int(r.integer(n, at, 1, MaxWeight)) },
		"drain_timeout": func(n ast.Node, at string) { cfg.DrainTimeout = r.duration(n, at) },
		"tasks":         func(n ast.Node, _ string) { cfg.Tasks = r.tasks(n) },
	})
	if seen == nil {
		return
	}
	for _, required := range []string{"service", "tasks"} {
		if !seen[required] {
			r.fault(n, required, "is required")
		}
	}
}

// Nodes splits an amqp_url into the URLs of the nodes.
func Nodes(amqpURL string) []string {
	nodes := strings.Split(amqpURL, ",")
	for i := range nodes {
		nodes[i] = strings.TrimSpace(nodes[i])
	}
	return nodes
}

// CheckAMQPURL returns the rule that an amqp_url breaks, or "".
func CheckAMQPURL(amqpURL string) (rule string) {
	for _, node := range Nodes(amqpURL) {
		u, err := url.Parse(node)
		if err != nil || (u.Scheme != "amqp" && u.Scheme != "amqps") || u.Host == "" {
			return "must be a URL such as amqp://user:password@host:5672/vhost; those of several nodes are separated by commas"
		}
	}
	return ""
}

func (r *reader) tasks(n ast.Node) []Task {
	var tasks []Task
	pairs, ok := r.pairs(n, "tasks")
	if ok && len(pairs) == 0 {
		r.fault(n, "tasks", "must name at least one task type")
	}
	for _, p := range pairs {
		at := "tasks[" + p.key + "]"
		name, version, versioned := strings.Cut(p.key, "@")
		if rule := checkName(name); rule != "" {
			r.fault(p.keyNode, at, "the task type %s", rule)
		}
		if rule := checkName(version); versioned && rule != "" {
			r.fault(p.keyNode, at, "the version after '@' %s", rule)
		}
		if slices.ContainsFunc(tasks, func(t Task) bool { return t.Type == p.key }) {
			r.fault(p.keyNode, at, "is there twice")
		}
		tasks = append(tasks, r.task(p, at))
	}
	return tasks
}

func (r *reader) task(p pair, at string) Task {
	t := Task{
		Type:        p.key,
		Method:      http.MethodPost,
		Headers:     http.Header{},
		MaxResponse: DefaultMaxResponse,
		Output:      OutputJSON,
		Success:     statuses("2xx"),
		Retry:       statuses("408", "425", "429", "503"),
		Unknown:     statuses("3xx", "5xx"),
	}
	seen := r.mapping(p.value, at, map[string]field{
		"url":                func(n ast.Node, at string) { t.URL = r.endpoint(n, at) },
		"method":             func(n ast.Node, at string) { t.Method = r.method(n, at) },
		"timeout":            func(n ast.Node, at string) { t.Timeout = r.duration(n, at) },
		"headers":            func(n ast.Node, at string) { t.Headers = r.headers(n, at) },
		"output":             func(n ast.Node, at string) { t.Output = r.output(n, at) },
		"success":            func(n ast.Node, at string) { t.Success = r.statuses(n, at) },
		"retry":              func(n ast.Node, at string) { t.Retry = r.statuses(n, at) },
		"unknown":            func(n ast.Node, at string) { t.Unknown = r.statuses(n, at) },
		"max_response_bytes": func(n ast.Node, at string) { t.MaxResponse = r.integer(n, at, 1, MaxMaxResponse) },
	})
	if seen != nil && !seen["url"] {
		r.fault(p.keyNode, at+".url", "is required")
	}
	r.disjoint(p, at, seen, map[string]*Statuses{"success": &t.Success, "retry": &t.Retry, "unknown": &t.Unknown})
	return t
}

// disjoint sees to it that no status has two meanings. What the file says goes
// before what is so by default; that it says two things is a fault.
func (r *reader) disjoint(p pair, at string, said map[string]bool, lists map[string]*Statuses) {
	for _, one := range slices.Sorted(maps.Keys(lists)) {
		for _, other := range slices.Sorted(maps.Keys(lists)) {
			switch {
			case one == other || !said[one]:
			case !said[other]:
				lists[other].remove(lists[one])
			case one < other:
				if status := lists[one].shared(lists[other]); status != 0 {
					r.fault(p.keyNode, at, "%d is in %s and in %s: a status has one meaning", status, one, other)
				}
			}
		}
	}
}

func (r *reader) output(n ast.Node, at string) Output {
	o := Output(r.text(n, at))
	if o != "" && o != OutputJSON && o != OutputText && o != OutputNone {
		r.fault(n, at, "must be json, text or none")
	}
	return o
}

func (r *reader) endpoint(n ast.Node, at string) *url.URL {
	text := r.text(n, at)
	u, err := url.Parse(text)
	switch {
	case text == "":
		return nil // said already
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		r.fault(n, at, "must be an absolute http or https URL")
	case u.User != nil:
		r.fault(n, at, "must not hold credentials: send them in headers")
	case u.Fragment != "":
		r.fault(n, at, "must not have a fragment")
	}
	return u
}

func (r *reader) method(n ast.Node, at string) string {
	methods := []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	m := r.text(n, at)
	if m != "" && !slices.Contains(methods, m) {
		r.fault(n, at, "must be one of %s", strings.Join(methods, ", "))
	}
	return m
}

// reserved are the headers that the relay sets itself; every other RM- header
// is kept for it too.
var reserved = []string{
	"Idempotency-Key", "Traceparent", "Content-Type", "Content-Length", "Transfer-Encoding", "Connection", "Host",
}

func (r *reader) headers(n ast.Node, at string) http.Header {
	h := http.Header{}
	pairs, _ := r.pairs(n, at)
	for _, p := range pairs {
		field := at + "[" + p.key + "]"
		key := http.CanonicalHeaderKey(p.key)
		value := r.text(p.value, field)
		switch {
		case !headerName(p.key):
			r.fault(p.keyNode, field, "is not a header name")
		case slices.Contains(reserved, key) || strings.HasPrefix(key, "Rm-"):
			r.fault(p.keyNode, field, "is set by the relay itself")
		case !headerValue(value):
			r.fault(p.value, field, "holds characters that a header cannot")
		case h.Values(key) != nil:
			r.fault(p.keyNode, field, "is there twice")
		}
		h.Set(key, value)
	}
	return h
}

// headerName tells whether s is a token of RFC 9110.
func headerName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		return !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	})
}

// headerValue tells whether s may be the value of a header.
func headerValue(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f })
}

func (r *reader) statuses(n ast.Node, at string) Statuses {
	var s Statuses
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		r.fault(n, at, `must be a list of statuses, such as [200, 201] or ["2xx"]`)
		return s
	}
	for _, item := range list.Values {
		text, ok := scalar(item)
		if !ok {
			r.fault(item, at, "must hold statuses only")
		} else if err := s.add(text); err != nil {
			r.fault(item, at, "%v", err)
		}
	}
	return s
}

func (r *reader) duration(n ast.Node, at string) time.Duration {
	text := r.text(n, at)
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > MaxDuration {
		r.fault(n, at, "must be a duration above 0 and up to 24h, such as 500ms, 10s or 2m")
	}
	return d
}

// checkName returns the rule that a name breaks, or "".
func checkName(s string) (rule string) {
	const most = 64
	for i, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._-", rune(c))) {
			return "must be of letters, digits, '.', '_' and '-', and start with a letter or digit"
		}
	}
	if len(s) > most {
		return "must not be longer than 64 characters"
	}
	if s == "" {
		return "must not be empty"
	}
	return ""
}
