package protocol

import (
	"maps"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// DeadLetter lays out a message that could not be decoded for the dead letters
// queue: as it was, with the reason and where it was consumed (a queue's name,
// or an exchange and a key) in headers. It is persistent and mandatory.
func DeadLetter(queue string, m *broker.Message, source string, reason error) broker.Message {
	d := *m
	d.Exchange, d.Key = "", queue
	d.Mandatory, d.Persistent = true, true
	d.Headers = maps.Clone(m.Headers)
	if d.Headers == nil {
		d.Headers = make(map[string]any, 2)
	}
	d.Headers[HeaderReason] = cleanText(reason.Error(), MaxMessageBytes)
	d.Headers[HeaderSource] = cleanText(source, MaxMessageBytes)
	return d
}

// DeadLetterEntry is [DeadLetter] for one entry of the batch m: a batch of that
// entry alone.
func DeadLetterEntry(queue string, m *broker.Message, source string, e BadEntry) broker.Message {
	d := DeadLetter(queue, m, source, e.Err)
	d.Headers[HeaderCount] = int64(1)
	d.Body = e.Data
	return d
}
