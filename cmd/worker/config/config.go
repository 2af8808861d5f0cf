// Package config reads the configuration file of the relay worker.
//
// Reading is strict and says everything at once: an unknown field, a value of
// the wrong kind or out of range each become a [Fault] with its file, line,
// field and rule, and [Parse] returns all of them in one [Invalid].
package config

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Defaults and limits of the settings.
const (
	DefaultNamespace    = "ringmaster"
	DefaultConcurrency  = 16
	MaxConcurrency      = 10_000
	DefaultWeight       = 100
	MaxWeight           = 1_000
	DefaultDrainTimeout = 30 * time.Second
	MaxDuration         = 24 * time.Hour
	DefaultMaxResponse  = 1 << 20
	MaxMaxResponse      = 16 << 20
)

// ErrInvalid is matched by every [Invalid].
var ErrInvalid = errors.New("invalid configuration")

// Config is what the relay is told by its file.
type Config struct {
	AMQPURL      string // AMQP URLs of the nodes; may be empty in the file when it is given elsewhere
	Namespace    string
	Service      string
	Name         string // empty: made by the worker SDK
	Concurrency  int
	Weight       int
	DrainTimeout time.Duration
	Tasks        []Task // in the order of the file
}

// Task says where tasks of one type go and what the answers mean.
type Task struct {
	Type        string
	URL         *url.URL
	Method      string
	Timeout     time.Duration // 0: the step's own timeout alone
	Headers     http.Header
	MaxResponse int64  // bytes of the answer's body, and of the output made of it
	Output      Output // what becomes of the body of a success

	// What a status means. None is in two of them. A status in none is a final
	// failure if it is 4xx, else its effect is unknown.
	Success Statuses
	Retry   Statuses // no effect, and another attempt may help
	Unknown Statuses // there may have been an effect; asked again
}

// Output is what becomes of the body of a success.
type Output string

const (
	// OutputJSON: the body has to be JSON, and is the step's output; an empty
	// one is null. It is the default.
	OutputJSON Output = "json"
	// OutputText: the body is text; the output is a JSON string that holds it.
	OutputText Output = "text"
	// OutputNone: the body does not matter; the output is null.
	OutputNone Output = "none"
)

// Fault is one mistake in a configuration file.
type Fault struct {
	File  string
	Line  int // from 1
	Field string
	Rule  string
}

func (f Fault) String() string {
	if f.Field == "" {
		return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Rule)
	}
	return fmt.Sprintf("%s:%d: %s: %s", f.File, f.Line, f.Field, f.Rule)
}

// Invalid is the error of a file with faults, in the order of their lines.
type Invalid struct{ Faults []Fault }

func (e *Invalid) Error() string {
	lines := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Is makes errors.Is(err, ErrInvalid) true.
func (e *Invalid) Is(target error) bool { return target == ErrInvalid }

// Load reads the file at path. Lookup resolves ${NAME}, as [os.LookupEnv] does.
func Load(path string, lookup func(string) (string, bool)) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(path, data, lookup)
}
