package rabbit

import (
	"fmt"
	"maps"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// returnHeader marks a message that is mandatory and confirmed, so that its
// return can be told from that of another. It is removed on delivery.
const returnHeader = "x-ringmaster-publish"

func publishing(m *broker.Message) amqp.Publishing {
	p := amqp.Publishing{
		Headers:       amqp.Table(m.Headers),
		ContentType:   m.ContentType,
		CorrelationId: m.CorrelationID,
		MessageId:     m.ID,
		Type:          m.Type,
		AppId:         m.AppID,
		DeliveryMode:  amqp.Transient,
		Body:          m.Body,
	}
	if m.Persistent {
		p.DeliveryMode = amqp.Persistent
	}
	return p
}

// withHeader returns headers and one more; the caller's map is not changed.
func withHeader(h map[string]any, name string, value int64) amqp.Table {
	t := make(amqp.Table, len(h)+1)
	maps.Copy(t, h)
	t[name] = value
	return t
}

func fromDelivery(d *amqp.Delivery) broker.Message {
	return broker.Message{
		Exchange:      d.Exchange,
		Key:           d.RoutingKey,
		Persistent:    d.DeliveryMode == amqp.Persistent,
		ID:            d.MessageId,
		CorrelationID: d.CorrelationId,
		Type:          d.Type,
		ContentType:   d.ContentType,
		AppID:         d.AppId,
		Headers:       normalize(d.Headers),
		Body:          d.Body,
	}
}

func fromReturn(r *amqp.Return) broker.Message {
	return broker.Message{
		Exchange:      r.Exchange,
		Key:           r.RoutingKey,
		Mandatory:     true,
		Persistent:    r.DeliveryMode == amqp.Persistent,
		ID:            r.MessageId,
		CorrelationID: r.CorrelationId,
		Type:          r.Type,
		ContentType:   r.ContentType,
		AppID:         r.AppId,
		Headers:       normalize(r.Headers),
		Body:          r.Body,
	}
}

// normalize brings headers to the types that the port knows, whatever types a
// client in another language chose for them. Fields and lists, which the
// broker adds to some messages, are left out. It changes t, which is ours.
func normalize(t amqp.Table) map[string]any {
	for k, v := range t {
		switch v := v.(type) {
		case string, int64, bool, []byte:
			if k == returnHeader {
				delete(t, k)
			}
		case int8:
			t[k] = int64(v)
		case byte:
			t[k] = int64(v)
		case int16:
			t[k] = int64(v)
		case uint16:
			t[k] = int64(v)
		case int32:
			t[k] = int64(v)
		case uint32:
			t[k] = int64(v)
		case int:
			t[k] = int64(v)
		case uint64:
			t[k] = int64(v)
		case float32, float64:
			t[k] = fmt.Sprint(v)
		case time.Time:
			t[k] = v.UTC().Format(time.RFC3339)
		default:
			delete(t, k)
		}
	}
	if len(t) == 0 {
		return nil
	}
	return t
}
