package protocol

import (
	"fmt"
	"strconv"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// Version is the newest protocol version that this code speaks, and MinVersion
// the oldest: the one before. So peers one version apart work together, in the
// older one of their versions, and a fleet is upgraded one process after the
// other.
const (
	Version    = 2
	MinVersion = Version - 1
)

// openVersion is what requests and answers are written in. Their form has not
// changed since, and a request may lie in its queue while the orchestrators are
// upgraded; so that of any older version is read.
const openVersion = 1

// Versions are the protocol versions that one side speaks: it reads and writes
// each of them.
type Versions struct{ Min, Max int }

// Spoken is what this code speaks.
func Spoken() Versions { return Versions{Min: MinVersion, Max: Version} }

// Common is the version in which two sides talk: the newest that both speak. The
// error wraps [ErrVersion]; its text names the versions of both.
func (v Versions) Common(peer Versions) (int, error) {
	c := min(v.Max, peer.Max)
	if c < max(v.Min, peer.Min) {
		return 0, &VersionError{Theirs: peer, Ours: v}
	}
	return c, nil
}

// String is "2", or "1 to 2".
func (v Versions) String() string {
	if v.Min == v.Max {
		return strconv.Itoa(v.Max)
	}
	return strconv.Itoa(v.Min) + " to " + strconv.Itoa(v.Max)
}

// VersionError says that a peer speaks no version that this side speaks. It is
// [ErrVersion] and [ErrMalformed].
type VersionError struct {
	Kind   Kind   // of the message that said so; empty where there is none
	Sender string // incarnation that wrote it, as far as the message says
	Theirs Versions
	Ours   Versions
}

// Error names the sender and the versions of both sides.
func (e *VersionError) Error() string {
	who := "the peer"
	switch {
	case e.Kind == KindHeartbeat && e.Sender != "":
		who = "worker " + strconv.Quote(e.Sender)
	case e.Kind != "" && e.Sender != "":
		who = "orchestrator " + strconv.Quote(e.Sender)
	case e.Kind != "":
		who = "the sender of the " + string(e.Kind)
	}
	return fmt.Sprintf("%v: %s speaks protocol version %v, this side speaks version %v", ErrVersion, who, e.Theirs, e.Ours)
}

// Is makes the error one of [ErrVersion] and [ErrMalformed].
func (e *VersionError) Is(target error) bool { return target == ErrVersion || target == ErrMalformed }

// Feature is something that a message may say.
type Feature struct {
	Name  string // the header, field or part, as docs/protocol.md writes it
	Since int    // the version that brought it
	Older string // what is done where the peer speaks an older version
}

// Features are what versions after the first brought. docs/protocol.md repeats
// the list. None is needed to perform a task: all that a task may say, version 1
// says too, so that every task may go to every worker. A feature that is needed
// must also keep its tasks from workers that speak an older version.
func Features() []Feature {
	return []Feature{
		{"`max_version` of heartbeats and announcements", 2, "it ignores the field, and is taken to speak `version` alone"},
		{"`refused` of controls", 2, "it ignores the field; the orchestrator's log, lists and metrics say it"},
		{"`heard` of heartbeats, `seq` of announcements", 2, "of a worker that does not say what it has heard, a new owner of a shard waits for two heartbeats"},
		{"messages between orchestrators (`NS.shards`)", 2, "an orchestrator of version 1 owns all shards alone, and takes part in nothing that is shared"},
	}
}

// MessageVersion is the version that a message says it is written in; 0 if it
// does not say so.
func MessageVersion(m *broker.Message) int {
	if n, ok := integer(m.Headers[HeaderVersion]); ok && n > 0 && n <= maxVersion {
		return int(n)
	}
	return 0
}

// StampVersion says in the headers of a message that it is written in version v.
// The encoders of this package do it by themselves.
func StampVersion(h map[string]any, v int) { h[HeaderVersion] = int64(v) }

// CheckVersion makes sure that a message is written in a version that this code
// speaks. The error is a [VersionError] or says that there is no version. The
// decoders of this package do it by themselves.
func CheckVersion(m *broker.Message) error { return checkVersion(m, MinVersion) }

// checkVersion is CheckVersion where versions from oldest on are read.
func checkVersion(m *broker.Message, oldest int) error {
	f := fields{h: m.Headers}
	v := f.int(HeaderVersion, 0, maxNumber)
	if f.err != nil {
		return f.err
	}
	return checkWritten(v, oldest, Kind(m.Type), m.AppID)
}

func checkWritten(v int64, oldest int, k Kind, sender string) error {
	if v < int64(oldest) || v > Version {
		written := int(min(v, maxVersion))
		return &VersionError{Kind: k, Sender: cut(sender, MaxNameBytes), Theirs: Versions{written, written}, Ours: Versions{oldest, Version}}
	}
	return nil
}
