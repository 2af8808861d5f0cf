package protocol

import (
	"encoding/json"
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of what is accepted. Decoders refuse what is beyond them, except for
// texts that are only read by people (code, message and stack of a result),
// which encoders and decoders cut: no outcome is lost over a long stack.
const (
	MaxNameBytes       = 200       // a name or id: run, workflow, step, service, task type, worker, orchestrator, release
	MaxRoutingKeyBytes = 256       // a routing key
	MaxQueueBytes      = 255       // a queue's name (AMQP)
	MaxCodeBytes       = 200       // Result.Code; longer ones are cut
	MaxMessageBytes    = 4 << 10   // Result.Message; longer ones are cut
	MaxStackBytes      = 16 << 10  // Result.Stack; longer ones are cut
	MaxProgressBytes   = 2 << 10   // progress of a handler; a longer one, or one that is not JSON, is dropped
	MaxTokensBytes     = 80 << 10  // all tokens of a task as they travel; a header of AMQP fits into a frame
	MaxTokenNameBytes  = 512       // a token's name
	MaxPayloadBytes    = 16 << 20  // payload of a task or a result, body of a request
	MaxBatchEntries    = 10_000    // tasks or results in one message
	MaxBatchBytes      = 64 << 20  // body of a batch; senders had better stay near 1 MiB
	MaxJSONBytes       = 8 << 20   // body of a heartbeat, an announcement or a control
	MaxWeight          = 1_000     // Heartbeat.Weight
	MaxCapacity        = 1_000_000 // Heartbeat.Capacity and Heartbeat.Credit
	MaxTaskTypes       = 1_000     // Heartbeat.TaskTypes
	MaxCapabilities    = 100       // Heartbeat.Capabilities
	MaxHeld            = 100_000   // each list of tasks in a heartbeat or a control
	MaxPeers           = 100_000   // each map by incarnation in a heartbeat or an announcement
	MaxShards          = 65_536    // shard numbers are below it
)

// Numbers travel as signed 64-bit integers, the largest that AMQP has.
const (
	maxNumber    = math.MaxInt64
	maxTimeoutMS = int64(math.MaxInt64 / time.Millisecond)
	maxDurUS     = int64(math.MaxInt64 / time.Microsecond)
	maxUnixMS    = 253_402_300_799_999 // the end of the year 9999
	maxTrace     = 128
	maxVersion   = math.MaxInt16
)

// goodName tells whether s is valid UTF-8 without control characters, of at
// most max bytes. The empty string is good.
func goodName(s string, max int) bool {
	if len(s) > max {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] >= 0x7f {
			return goodUnicode(s)
		}
	}
	return true
}

func goodUnicode(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if unicode.IsControl(r) {
			return false
		}
	}
	return true
}

// nameFault says what is wrong with a name that goodName refused.
func nameFault(s string, max int) string {
	switch {
	case len(s) > max:
		return "longer than allowed"
	case !utf8.ValidString(s):
		return "not UTF-8"
	default:
		return "contains a control character"
	}
}

// cut shortens s to at most max bytes without splitting a character.
func cut(s string, max int) string {
	if len(s) <= max {
		return s
	}
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max]
}

// cleanText makes a text for people storable anywhere: valid UTF-8, no NUL,
// at most max bytes. A clean text is returned as it is.
func cleanText(s string, max int) string {
	s = cut(s, max)
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "?")
	return cut(s, max)
}

// cleanCode is cleanText for a code: no control characters at all.
func cleanCode(s string) string {
	if goodName(s, MaxCodeBytes) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, cleanText(s, MaxCodeBytes))
}

// cleanTrace drops what cannot be a traceparent; a broken trace is no reason
// to refuse a message.
func cleanTrace(s string) string {
	if len(s) > maxTrace {
		return ""
	}
	for i := 0; i < len(s); i++ {
		if s[i] <= 0x20 || s[i] >= 0x7f {
			return ""
		}
	}
	return s
}

// cleanProgress drops what is no progress: a broken one is no reason to refuse
// a message.
func cleanProgress(p []byte) []byte {
	if len(p) == 0 || len(p) > MaxProgressBytes || !json.Valid(p) {
		return nil
	}
	return p
}
