package protocol

import (
	"github.com/ringmaster-dev/ringmaster/broker"
)

// Kinds of the messages that orchestrators send each other. Workers never see
// them; their bodies are the engine's own.
const (
	KindErrand      Kind = "errand"       // a call, to a shard's owner or to one orchestrator
	KindErrandReply Kind = "errand.reply" // its answer
	KindLetters     Kind = "letters"      // what shards tell each other
)

// ShardsExchange is the direct exchange on which orchestrators reach the owner of
// a shard, by [ShardKey], and each other, by [NodeKey].
func ShardsExchange(ns string) string { return name(ns, "shards") }

// MailQueue is the prefix of the exclusive queue on which an orchestrator gets
// what others send to it.
func MailQueue(ns, orchestrator string) string {
	return name(ns, "mail."+cut(orchestrator, maxQueueWorker))
}

// NodeKey is the routing key of one orchestrator incarnation.
func NodeKey(orchestrator string) string { return "node." + cut(orchestrator, maxQueueWorker) }

// Mail is a message between orchestrators.
type Mail struct {
	Kind Kind
	ID   string // of an errand, as its sender counts; and of its answer
	From string // orchestrator incarnation
	Body []byte // JSON
}

// mailVersion is what mail is written in: the version that brought it. Its form has
// not changed since, and the bodies are JSON of which unknown fields are ignored,
// so that orchestrators of all later versions read it.
const mailVersion = 2

// EncodeErrand lays out a call. It comes back if nobody has the key.
func EncodeErrand(exchange, key, from, id string, body []byte) broker.Message {
	m := mail(exchange, key, KindErrand, from, id, body)
	m.Mandatory = true
	return m
}

// EncodeErrandReply lays out the answer to a call of the orchestrator to.
func EncodeErrandReply(exchange, to, from, id string, body []byte) broker.Message {
	return mail(exchange, NodeKey(to), KindErrandReply, from, id, body)
}

// EncodeLetters lays out what is sent to one shard.
func EncodeLetters(exchange string, shard uint32, from string, body []byte) broker.Message {
	return mail(exchange, ShardKey(shard), KindLetters, from, "", body)
}

func mail(exchange, key string, k Kind, from, id string, body []byte) broker.Message {
	return broker.Message{
		Exchange: exchange, Key: key, Type: string(k), ContentType: ContentTypeJSON, AppID: cut(from, MaxNameBytes),
		CorrelationID: cut(id, MaxNameBytes), Headers: versionHeader(mailVersion), Body: body,
	}
}

// DecodeMail returns a message between orchestrators. Its body, which is not
// looked at, aliases m.Body. Errors wrap [ErrMalformed], and [ErrVersion] where
// the sender writes a version that this code does not know.
func DecodeMail(m *broker.Message) (Mail, error) {
	k := Kind(m.Type)
	switch k {
	case KindErrand, KindErrandReply, KindLetters:
	default:
		k = KindErrand
	}
	if err := isKind(m, k); err != nil {
		return Mail{}, err
	}
	if err := checkVersion(m, mailVersion); err != nil {
		return Mail{}, err
	}
	return Mail{Kind: k, ID: m.CorrelationID, From: m.AppID, Body: m.Body}, nil
}
