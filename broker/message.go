package broker

import (
	"errors"
	"fmt"
)

// ErrInvalid: a message or a name breaks a rule of the port; nothing was sent.
var ErrInvalid = errors.New("invalid message")

// MaxName bounds, in bytes, every short text of a message and every name of an
// exchange or a queue: the limit of AMQP 0-9-1.
const MaxName = 255

// Check reports the first field of m that breaks a rule, as an error that
// wraps [ErrInvalid]. Every implementation refuses such a message before it
// sends anything.
func (m *Message) Check() error {
	if len(m.Exchange)|len(m.Key)|len(m.ID)|len(m.CorrelationID)|len(m.Type)|len(m.ContentType)|len(m.AppID) > MaxName {
		// The or of lengths is at least the largest: look closer.
		for _, f := range []struct{ name, value string }{
			{"Exchange", m.Exchange}, {"Key", m.Key}, {"ID", m.ID}, {"CorrelationID", m.CorrelationID},
			{"Type", m.Type}, {"ContentType", m.ContentType}, {"AppID", m.AppID},
		} {
			if err := CheckName(f.name, f.value); err != nil {
				return err
			}
		}
	}
	for k, v := range m.Headers {
		if len(k) > MaxName {
			return CheckName("Headers", k)
		}
		switch v.(type) {
		case string, int64, bool, []byte:
		default:
			return fmt.Errorf("%w: header %q is a %T; string, int64, bool and []byte are allowed", ErrInvalid, k, v)
		}
	}
	return nil
}

// CheckName reports a text that is longer than [MaxName].
func CheckName(field, value string) error {
	if len(value) > MaxName {
		return fmt.Errorf("%w: %s is %d bytes long; at most %d are allowed", ErrInvalid, field, len(value), MaxName)
	}
	return nil
}
