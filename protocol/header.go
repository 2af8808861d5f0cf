package protocol

import (
	"fmt"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// The headers. docs/protocol.md gives the type and the meaning of each.
const (
	HeaderVersion        = "rm-version"
	HeaderRef            = "rm-ref"
	HeaderRun            = "rm-run"
	HeaderWorkflow       = "rm-workflow"
	HeaderStep           = "rm-step"
	HeaderStepIndex      = "rm-step-index"
	HeaderPhase          = "rm-phase"
	HeaderGeneration     = "rm-generation"
	HeaderAttempt        = "rm-attempt"
	HeaderService        = "rm-service"
	HeaderTaskType       = "rm-task-type"
	HeaderRoutingKey     = "rm-routing-key"
	HeaderShard          = "rm-shard"
	HeaderEpoch          = "rm-epoch"
	HeaderOwner          = "rm-owner"
	HeaderWorker         = "rm-worker"
	HeaderSeq            = "rm-seq"
	HeaderTimeout        = "rm-timeout-ms"
	HeaderNotAfter       = "rm-not-after-ms"
	HeaderIdempotencyKey = "rm-idempotency-key"
	HeaderDurable        = "rm-durable"
	HeaderOutcome        = "rm-outcome"
	HeaderRetryable      = "rm-retryable"
	HeaderResent         = "rm-resent"
	HeaderOnePhase       = "rm-one-phase"
	HeaderUndoesRun      = "rm-undoes-run"
	HeaderCode           = "rm-code"
	HeaderMessage        = "rm-message"
	HeaderStack          = "rm-stack"
	HeaderDuration       = "rm-duration-us"
	HeaderCount          = "rm-count"
	HeaderRequest        = "rm-request"
	HeaderReplyTo        = "rm-reply-to"
	HeaderDecision       = "rm-decision"
	HeaderReason         = "rm-reason"
	HeaderSource         = "rm-source"
	HeaderProgress       = "rm-progress"
	HeaderTokens         = "rm-tokens"
	HeaderTrace          = "traceparent" // the W3C's own name, as tracing libraries look for it
)

// fields reads headers and keeps the first fault.
type fields struct {
	h   map[string]any
	err error
}

func (f *fields) fail(key, format string, args ...any) {
	if f.err == nil {
		f.err = fmt.Errorf("%w: header %s: %s", ErrMalformed, key, fmt.Sprintf(format, args...))
	}
}

// raw returns a header's text, whatever it holds.
func (f *fields) raw(key string) string {
	switch v := f.h[key].(type) {
	case nil:
		return ""
	case string:
		return v
	case []byte: // some clients write strings as byte arrays
		return string(v)
	default:
		f.fail(key, "want a string, got %T", v)
		return ""
	}
}

// name returns a required name.
func (f *fields) name(key string, max int) string {
	s := f.raw(key)
	if s == "" {
		f.fail(key, "is missing or empty")
	} else if !goodName(s, max) {
		f.fail(key, "%s (at most %d bytes)", nameFault(s, max), max)
	}
	return s
}

// optional is name for a header that may be missing, or empty.
func (f *fields) optional(key string, max int) string {
	if f.raw(key) == "" {
		return ""
	}
	return f.name(key, max)
}

// int returns a required integer within [min, max].
func (f *fields) int(key string, min, max int64) int64 {
	if f.h[key] == nil {
		f.fail(key, "is missing")
		return 0
	}
	return f.intOr(key, 0, min, max)
}

// intOr is int with a value for an absent header.
func (f *fields) intOr(key string, absent, min, max int64) int64 {
	v := f.h[key]
	if v == nil {
		return absent
	}
	n, ok := integer(v)
	if !ok {
		f.fail(key, "want an integer, got %T", v)
		return 0
	}
	if n < min || n > max {
		f.fail(key, "%d is not between %d and %d", n, min, max)
		return 0
	}
	return n
}

func (f *fields) bool(key string) bool {
	switch v := f.h[key].(type) {
	case nil:
		return false
	case bool:
		return v
	default:
		f.fail(key, "want a boolean, got %T", v)
		return false
	}
}

// integer accepts every integer type that an AMQP client may have chosen for
// a number.
func integer(v any) (int64, bool) {
	switch n := v.(type) {
	case int64:
		return n, true
	case int32:
		return int64(n), true
	case int16:
		return int64(n), true
	case int8:
		return int64(n), true
	case int:
		return int64(n), true
	case uint8:
		return int64(n), true
	case uint16:
		return int64(n), true
	case uint32:
		return int64(n), true
	case uint64:
		return int64(n), n <= maxNumber
	case uint:
		return int64(n), uint64(n) <= maxNumber
	default:
		return 0, false
	}
}

// checkKind makes sure that m is of the kind and of a version that this side
// reads. Decoders begin with it.
func checkKind(m *broker.Message, k Kind) error {
	if err := isKind(m, k); err != nil {
		return err
	}
	return CheckVersion(m)
}

// checkOpenKind is checkKind for kinds of which all older versions are read.
func checkOpenKind(m *broker.Message, k Kind) error {
	if err := isKind(m, k); err != nil {
		return err
	}
	return checkVersion(m, openVersion)
}

func isKind(m *broker.Message, k Kind) error {
	if m.Type != string(k) {
		return fmt.Errorf("%w: property type is %.40q, want %q", ErrMalformed, m.Type, k)
	}
	return nil
}
