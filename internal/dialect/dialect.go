// Package dialect has peers speak other protocol versions than this code does,
// for tests of fleets in which not all are of one version.
//
// It stands between a peer and its broker: what the peer says of its versions is
// changed, what it hears of others' is cut down to what a peer of that version
// would take from it, and whatever is then written in a version that one of the
// two does not speak is a fault. The bytes of each version are held by
// protocol/testdata.
package dialect

import (
	"context"
	"encoding/json"
	"maps"

	"github.com/ringmaster-dev/ringmaster/broker"
	"github.com/ringmaster-dev/ringmaster/protocol"
)

// Broker is b for a peer that speaks the given versions. fault is told of every
// message that such a peer would not have written or could not read; the message
// is dropped. It must be safe for concurrent use.
func Broker(b broker.Broker, speaks protocol.Versions, fault func(format string, args ...any)) broker.Broker {
	return &translator{b, speaks, fault}
}

type translator struct {
	broker.Broker
	speaks protocol.Versions
	fault  func(string, ...any)
}

// Open implements broker.Broker.
func (t *translator) Open(ctx context.Context, o broker.Options) (broker.Conn, error) {
	c, err := t.Broker.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return &conn{c, t}, nil
}

type conn struct {
	broker.Conn
	*translator
}

// Publish implements broker.Conn.
func (c *conn) Publish(ctx context.Context, msgs ...broker.Message) error {
	out := make([]broker.Message, 0, len(msgs))
	for _, m := range msgs {
		if toAll(&m) {
			m = say(m, c.speaks)
		} else if !c.speech("wrote", &m) {
			continue
		}
		out = append(out, m)
	}
	return c.Conn.Publish(ctx, out...)
}

// Subscribe implements broker.Conn.
func (c *conn) Subscribe(ctx context.Context, s broker.Subscription) (broker.Consumer, error) {
	handle := s.Handler
	s.Handler = func(d broker.Delivery) {
		if toAll(&d.Message) {
			d.Message = say(d.Message, c.heard(spoken(&d.Message)))
		} else if !c.speech("was sent", &d.Message) {
			return
		}
		handle(d)
	}
	return c.Conn.Subscribe(ctx, s)
}

// heard is what this peer makes of what another says that it speaks: it knows
// nothing of versions after its own, and has nothing to do with a peer that has
// none of its own. It understands itself.
func (t *translator) heard(other protocol.Versions) protocol.Versions {
	if _, err := protocol.Spoken().Common(other); err != nil && other == t.speaks {
		return protocol.Spoken()
	}
	if _, err := t.speaks.Common(other); err != nil {
		return protocol.Versions{Min: protocol.Version + 1, Max: protocol.Version + 1}
	}
	return protocol.Versions{Min: other.Min, Max: min(other.Max, t.speaks.Max)}
}

// speech tells whether a message is in a version that the peer speaks. Requests
// and answers are read whatever they are written in.
func (t *translator) speech(what string, m *broker.Message) bool {
	switch protocol.Kind(m.Type) {
	case protocol.KindTask, protocol.KindResult, protocol.KindControl:
	default:
		return true
	}
	if v := protocol.MessageVersion(m); v < t.speaks.Min || v > t.speaks.Max {
		t.fault("a peer of protocol version %v %s a %s of version %d", t.speaks, what, m.Type, v)
		return false
	}
	return true
}

func toAll(m *broker.Message) bool {
	return m.Type == string(protocol.KindHeartbeat) || m.Type == string(protocol.KindAnnouncement)
}

// spoken is what a heartbeat or an announcement says of its sender's versions.
func spoken(m *broker.Message) protocol.Versions {
	var b struct {
		Version    int `json:"version"`
		MaxVersion int `json:"max_version"`
	}
	_ = json.Unmarshal(m.Body, &b) // what is not JSON is for the reader to refuse
	return protocol.Versions{Min: b.Version, Max: max(b.Version, b.MaxVersion)}
}

// say has a heartbeat or an announcement say that its sender speaks v.
func say(m broker.Message, v protocol.Versions) broker.Message {
	body := map[string]json.RawMessage{}
	if err := json.Unmarshal(m.Body, &body); err != nil {
		return m
	}
	number := func(n int) json.RawMessage { b, _ := json.Marshal(n); return b }
	body["version"] = number(v.Min)
	delete(body, "max_version")
	if v.Max > v.Min {
		body["max_version"] = number(v.Max)
	}
	changed, err := json.Marshal(body)
	if err != nil {
		return m
	}
	m.Body, m.Headers = changed, maps.Clone(m.Headers)
	protocol.StampVersion(m.Headers, v.Min)
	return m
}
