package protocol

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// EncodeHeartbeat lays out a heartbeat for the heartbeats exchange. It is for all
// orchestrators, and so written in the oldest version that this code speaks; it
// says which it speaks, whatever h says of that.
func EncodeHeartbeat(exchange string, h *Heartbeat) broker.Message {
	return encodeHeartbeat(Spoken(), exchange, h)
}

func encodeHeartbeat(spoken Versions, exchange string, h *Heartbeat) broker.Message {
	v := *h
	v.Version, v.MaxVersion = spoken.written()
	return broker.Message{
		Exchange: exchange, Type: string(KindHeartbeat), ContentType: ContentTypeJSON,
		AppID: cut(v.Worker, MaxNameBytes), Headers: versionHeader(v.Version), Body: mustJSON(&v),
	}
}

// EncodeAnnouncement lays out an announcement for the announcements exchange, as
// [EncodeHeartbeat] does a heartbeat.
func EncodeAnnouncement(exchange string, a *Announcement) broker.Message {
	return encodeAnnouncement(Spoken(), exchange, a)
}

func encodeAnnouncement(spoken Versions, exchange string, a *Announcement) broker.Message {
	v := *a
	v.Version, v.MaxVersion = spoken.written()
	return broker.Message{
		Exchange: exchange, Type: string(KindAnnouncement), ContentType: ContentTypeJSON,
		AppID: cut(v.Orchestrator, MaxNameBytes), Headers: versionHeader(v.Version), Body: mustJSON(&v),
	}
}

// written is what a message to everybody says of the versions that its sender
// speaks: the oldest, in which it is written, and the newest if that is another.
func (v Versions) written() (version, newest int) {
	if v.Max == v.Min {
		return v.Min, 0
	}
	return v.Min, v.Max
}

// EncodeControl lays out an order for a worker's queue, in version v whatever
// c.Version says; the worker speaks it.
func EncodeControl(v int, queue string, c *Control) broker.Message {
	k := *c
	k.Version = v
	if v < 2 {
		k.Refused = ""
	}
	return broker.Message{
		Key: queue, Mandatory: true, Type: string(KindControl), ContentType: ContentTypeJSON,
		AppID: cut(k.Orchestrator, MaxNameBytes), Headers: versionHeader(v), Body: mustJSON(&k),
	}
}

// EncodeRequest lays out a request for the requests queue: persistent, and
// mandatory, since the message is its only copy. It must be published with
// confirmation.
func EncodeRequest(queue string, r *Request) broker.Message {
	h := versionHeader(openVersion)
	h[HeaderRequest] = string(r.Type)
	putText(h, HeaderRun, r.RunID)
	putText(h, HeaderReplyTo, r.ReplyTo)
	putTrace(h, r.Trace)
	return broker.Message{
		Key: queue, Mandatory: true, Persistent: true, Type: string(KindRequest), ContentType: ContentTypeJSON,
		CorrelationID: cut(r.RunID, MaxNameBytes), Headers: h, Body: r.Body,
	}
}

func versionHeader(v int) map[string]any { return map[string]any{HeaderVersion: int64(v)} }

// mustJSON encodes a message of this package. They hold strings, numbers and
// texts whose MarshalText does not fail, so that there is no error to return.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("protocol: encode " + fmt.Sprintf("%T", v) + ": " + err.Error())
	}
	return b
}

// DecodeHeartbeat returns the heartbeat of a message. Fields that it does not
// know are ignored; a value out of range is refused. Errors wrap [ErrMalformed].
// With a [VersionError] the heartbeat has what says who the worker is, and its
// queue, as far as that could be read.
func DecodeHeartbeat(m *broker.Message) (Heartbeat, error) {
	var h Heartbeat
	newer, err := decodeOpenJSON(m, KindHeartbeat, &h)
	if err != nil {
		return Heartbeat{}, err
	}
	if newer > 0 {
		h.Version, h.MaxVersion = newer, min(max(newer, h.MaxVersion), maxVersion)
	} else if err := h.check(); err != nil {
		return Heartbeat{}, err
	}
	if _, err := Spoken().Common(h.Speaks()); err != nil {
		h = h.identity(m)
		return h, refuse(err, KindHeartbeat, h.Worker)
	}
	return h, nil
}

// Speaks is which versions the worker speaks.
func (h *Heartbeat) Speaks() Versions { return Versions{h.Version, max(h.Version, h.MaxVersion)} }

// identity is what is known of a worker whose heartbeat is not for this code.
func (h *Heartbeat) identity(m *broker.Message) Heartbeat {
	i := Heartbeat{
		Version: h.Version, MaxVersion: h.MaxVersion, Worker: h.Worker, Name: h.Name, Queue: h.Queue, Service: h.Service, Release: h.Release,
		Leaving: h.Leaving,
	}
	i.Worker = cmp.Or(i.Worker, m.AppID)
	for _, s := range []*string{&i.Worker, &i.Name, &i.Service, &i.Release} {
		if !goodName(*s, MaxNameBytes) {
			*s = ""
		}
	}
	if !goodName(i.Queue, MaxQueueBytes) {
		i.Queue = ""
	}
	return i
}

// DecodeAnnouncement returns the announcement of a message; see
// [DecodeHeartbeat]. With a [VersionError] it has the orchestrator's incarnation
// and versions, and whether it comes or goes, as far as they could be read.
func DecodeAnnouncement(m *broker.Message) (Announcement, error) {
	var a Announcement
	newer, err := decodeOpenJSON(m, KindAnnouncement, &a)
	if err != nil {
		return Announcement{}, err
	}
	if newer > 0 {
		a.Version, a.MaxVersion = newer, min(max(newer, a.MaxVersion), maxVersion)
	} else if err := a.check(); err != nil {
		return Announcement{}, err
	}
	if _, err := Spoken().Common(a.Speaks()); err != nil {
		a = a.identity(m)
		return a, refuse(err, KindAnnouncement, a.Orchestrator)
	}
	return a, nil
}

// identity is what is known of an orchestrator whose announcement is not for
// this code.
func (a *Announcement) identity(m *broker.Message) Announcement {
	i := Announcement{
		Version: a.Version, MaxVersion: a.MaxVersion, Orchestrator: cmp.Or(a.Orchestrator, m.AppID), Hello: a.Hello, Leaving: a.Leaving,
	}
	if !goodName(i.Orchestrator, MaxNameBytes) {
		i.Orchestrator = ""
	}
	return i
}

// Speaks is which versions the orchestrator speaks.
func (a *Announcement) Speaks() Versions { return Versions{a.Version, max(a.Version, a.MaxVersion)} }

// refuse says of an error of [Versions.Common] whom it is about.
func refuse(err error, k Kind, sender string) error {
	if v, ok := errors.AsType[*VersionError](err); ok {
		v.Kind, v.Sender = k, sender
	}
	return err
}

// DecodeControl returns the order of a message; see [DecodeHeartbeat].
func DecodeControl(m *broker.Message) (Control, error) {
	var c Control
	if err := decodeJSON(m, KindControl, &c); err != nil {
		return Control{}, err
	}
	if err := c.check(); err != nil {
		return Control{}, err
	}
	return c, nil
}

// DecodeRequest returns the request of a message. Its body is JSON, which is
// all that is checked of it, and aliases m.Body. Errors wrap [ErrMalformed].
func DecodeRequest(m *broker.Message) (Request, error) {
	if err := checkOpenKind(m, KindRequest); err != nil {
		return Request{}, err
	}
	f := fields{h: m.Headers}
	r := Request{Type: RequestType(f.name(HeaderRequest, MaxNameBytes)), Trace: cleanTrace(f.raw(HeaderTrace))}
	switch r.Type {
	case RequestStart, RequestRegister:
		if f.raw(HeaderRun) != "" {
			r.RunID = f.name(HeaderRun, MaxNameBytes)
		}
	case RequestCancel, RequestSignal:
		r.RunID = f.name(HeaderRun, MaxNameBytes)
	case RequestDecision:
		r.RunID = f.name(HeaderRun, MaxNameBytes)
		r.ReplyTo = f.name(HeaderReplyTo, MaxQueueBytes)
	default:
		f.fail(HeaderRequest, "%.40q is not a request", string(r.Type))
	}
	r.Body = f.payload(m)
	if f.err != nil {
		return Request{}, f.err
	}
	mayBeEmpty := r.Type == RequestCancel || r.Type == RequestDecision
	if !json.Valid(r.Body) && !(mayBeEmpty && r.Body == nil) {
		return Request{}, fmt.Errorf("%w: request: body: not JSON", ErrMalformed)
	}
	return r, nil
}

// decodeOpenJSON reads a message that is for everybody. It may be of a version
// that this side does not speak, and yet of a sender with which it has one in
// common. One that says that it has none may look otherwise in all but who it is
// from: v then has what of it could be read, and newer is the version.
func decodeOpenJSON(m *broker.Message, k Kind, v any) (newer int, err error) {
	if err := isKind(m, k); err != nil {
		return 0, err
	}
	f := fields{h: m.Headers}
	written := f.int(HeaderVersion, 1, maxVersion)
	if f.err != nil {
		return 0, f.err
	}
	err = unmarshal(m, k, v)
	if written > Version {
		return int(written), nil
	}
	return 0, err
}

// decodeJSON checks the version before the rest, so that a message of another
// version is refused for that and not for what it looks like.
func decodeJSON(m *broker.Message, k Kind, v any) error {
	if err := checkKind(m, k); err != nil {
		return err
	}
	return unmarshal(m, k, v)
}

func unmarshal(m *broker.Message, k Kind, v any) error {
	if len(m.Body) > MaxJSONBytes {
		return fmt.Errorf("%w: %s: body: %d bytes, at most %d", ErrMalformed, k, len(m.Body), MaxJSONBytes)
	}
	if err := json.Unmarshal(m.Body, v); err != nil {
		if errors.Is(err, ErrMalformed) {
			return fmt.Errorf("%s: %w", k, err)
		}
		return fmt.Errorf("%w: %s: %w", ErrMalformed, k, err)
	}
	return nil
}

// checker keeps the first fault of a JSON message.
type checker struct {
	kind Kind
	err  error
}

func (c *checker) fail(field, format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s: %s: %s", ErrMalformed, c.kind, field, fmt.Sprintf(format, args...))
	}
}

func (c *checker) name(field, s string, max int) {
	if s == "" {
		c.fail(field, "is missing or empty")
		return
	}
	c.optional(field, s, max)
}

func (c *checker) optional(field, s string, max int) {
	if !goodName(s, max) {
		c.fail(field, "%s (at most %d bytes)", nameFault(s, max), max)
	}
}

func (c *checker) number(field string, n, min, max int64) {
	if n < min || n > max {
		c.fail(field, "%d is not between %d and %d", n, min, max)
	}
}

func (c *checker) unsigned(field string, n uint64) {
	if n > maxNumber {
		c.fail(field, "%d is above %d", n, int64(maxNumber))
	}
}

func (c *checker) names(field string, list []string, max int) {
	c.number(field+" (length)", int64(len(list)), 0, int64(max))
	for _, s := range list {
		c.name(field, s, MaxNameBytes)
	}
}

func (c *checker) peers(field string, m map[string]uint64) {
	c.number(field+" (length)", int64(len(m)), 0, MaxPeers)
	for k, v := range m {
		c.name(field, k, MaxNameBytes)
		c.unsigned(field, v)
	}
}

func (c *checker) taskID(field string, id *TaskID) {
	if id.Ref < 0 || id.Step < 0 || !id.Phase.Valid() || id.Generation < 1 || id.Attempt < 1 {
		c.fail(field, "%+v is not a task: ref and step from 0, a phase, generation and attempt from 1", *id)
	}
}

func (c *checker) held(field string, list []Held) {
	c.number(field+" (length)", int64(len(list)), 0, MaxHeld)
	for i := range list {
		c.taskID(field, &list[i].TaskID)
		c.number(field+".shard", int64(list[i].Shard), 0, MaxShards-1)
		c.number(field+".age_ms", list[i].AgeMS, 0, maxTimeoutMS)
		list[i].Progress = cleanProgress(list[i].Progress)
	}
}

// versions checks what a message to everybody says of its sender's versions.
func (c *checker) versions(oldest, newest int) {
	c.number("version", int64(oldest), 1, maxVersion)
	if newest != 0 {
		c.number("max_version", int64(newest), int64(oldest), maxVersion)
	}
}

func (h *Heartbeat) check() error {
	c := checker{kind: KindHeartbeat}
	c.versions(h.Version, h.MaxVersion)
	c.name("worker", h.Worker, MaxNameBytes)
	c.name("name", h.Name, MaxNameBytes)
	c.name("queue", h.Queue, MaxQueueBytes)
	c.name("service", h.Service, MaxNameBytes)
	c.names("task_types", h.TaskTypes, MaxTaskTypes)
	c.names("capabilities", h.Capabilities, MaxCapabilities)
	c.number("capacity", int64(h.Capacity), 1, MaxCapacity)
	c.number("credit", int64(h.Credit), 0, MaxCapacity)
	c.number("weight", int64(h.Weight), 1, MaxWeight)
	c.optional("release", h.Release, MaxNameBytes)
	c.number("interval_ms", h.IntervalMS, 1, 600_000)
	c.unsigned("sequence", h.Sequence)
	if h.Sequence == 0 {
		c.fail("sequence", "is missing or 0")
	}
	c.peers("received", h.Received)
	c.peers("floor", h.Floor)
	c.peers("heard", h.Heard)
	c.held("queued", h.Queued)
	c.held("running", h.Running)
	c.held("finished", h.Finished)
	return c.err
}

func (a *Announcement) check() error {
	c := checker{kind: KindAnnouncement}
	c.versions(a.Version, a.MaxVersion)
	c.name("orchestrator", a.Orchestrator, MaxNameBytes)
	c.number("interval_ms", a.IntervalMS, 0, 600_000)
	for shard, epoch := range a.Shards {
		c.number("shards", int64(shard), 0, MaxShards-1)
		c.unsigned("shards", epoch)
	}
	c.peers("durable", a.Durable)
	return c.err
}

func (k *Control) check() error {
	c := checker{kind: KindControl}
	if err := checkWritten(int64(k.Version), MinVersion, KindControl, k.Orchestrator); err != nil {
		return err
	}
	c.name("orchestrator", k.Orchestrator, MaxNameBytes)
	c.number("cancel (length)", int64(len(k.Cancel)), 0, MaxHeld)
	for i := range k.Cancel {
		c.taskID("cancel", &k.Cancel[i])
	}
	c.unsigned("durable", k.Durable)
	return c.err
}
