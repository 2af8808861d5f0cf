package protocol

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// BadEntry is an entry of a batch that could not be decoded; the others of the
// batch are not touched by it.
type BadEntry struct {
	Index int   // from 0
	Err   error // wraps ErrMalformed
	// Data is the body of a batch that has this entry alone, for a dead letter
	// (see [DeadLetterEntry]). Where a batch was cut off, it has all the bytes
	// that could not be told apart.
	Data []byte
}

// DecodeTasks returns the tasks of a message of either form, and the watermark
// that came with them. Of a batch, entries that cannot be decoded are in bad
// while the others are in tasks; err says that nothing of the message is
// usable, and wraps [ErrMalformed]. Payloads alias m.Body.
func DecodeTasks(m *broker.Message) (tasks []Task, durable uint64, bad []BadEntry, err error) {
	if err := checkKind(m, KindTask); err != nil {
		return nil, 0, nil, err
	}
	if m.ContentType != ContentTypeBatch {
		t, durable, err := decodeTask(m)
		if err != nil {
			return nil, 0, nil, err
		}
		return []Task{t}, durable, nil, nil
	}
	h, err := decodeHead(m.Body, batchTasks)
	if err != nil {
		return nil, 0, nil, err
	}
	tasks = make([]Task, 0, h.count)
	bad = h.each(func(c *cursor) {
		tasks = append(tasks, Task{})
		c.task(&tasks[len(tasks)-1], h)
		if c.err != nil {
			tasks = tasks[:len(tasks)-1]
		}
	})
	return tasks, h.durable, bad, nil
}

// DecodeResults returns the results of a message of either form, as
// [DecodeTasks] does for tasks. Payloads alias m.Body.
func DecodeResults(m *broker.Message) (rs []Result, bad []BadEntry, err error) {
	if err := checkKind(m, KindResult); err != nil {
		return nil, nil, err
	}
	if m.ContentType != ContentTypeBatch {
		r, err := decodeResult(m)
		if err != nil {
			return nil, nil, err
		}
		return []Result{r}, nil, nil
	}
	h, err := decodeHead(m.Body, batchResults)
	if err != nil {
		return nil, nil, err
	}
	f := fields{h: m.Headers}
	owner := f.optional(HeaderOwner, MaxNameBytes)
	if f.err != nil {
		return nil, nil, f.err
	}
	rs = make([]Result, 0, h.count)
	bad = h.each(func(c *cursor) {
		rs = append(rs, Result{Owner: owner})
		c.result(&rs[len(rs)-1], h)
		if c.err != nil {
			rs = rs[:len(rs)-1]
		}
	})
	return rs, bad, nil
}

// head is the decoded head of a batch.
type head struct {
	durable uint64
	sender  string
	table   []shared
	count   int
	raw     []byte // the head up to the count of entries, exclusive
	rest    []byte // the entries
}

type shared struct {
	s    string
	name bool // it is a good name
}

func decodeHead(body []byte, kind byte) (*head, error) {
	if len(body) > MaxBatchBytes {
		return nil, fmt.Errorf("%w: batch: %d bytes, at most %d", ErrMalformed, len(body), MaxBatchBytes)
	}
	c := cursor{b: body, where: "batch"}
	if v := c.byte("version"); c.err == nil {
		if err := checkWritten(int64(v), MinVersion, batchKind(kind), ""); err != nil {
			return nil, err
		}
	}
	if k := c.byte("kind"); c.err == nil && k != kind {
		c.fail("kind", "is %q, want %q", k, kind)
	}
	h := &head{durable: c.uvarint("durable", 0, maxNumber)}
	h.sender = c.str(c.span("sender", MaxNameBytes))
	if c.err == nil && (h.sender == "" || !goodName(h.sender, MaxNameBytes)) {
		c.fail("sender", "is empty or not a name")
	}
	h.table = c.table()
	h.raw = body[:c.pos]
	h.count = int(c.uvarint("count", 0, MaxBatchEntries))
	if c.err == nil && h.count > (len(body)-c.pos)/entryPrefix {
		c.fail("count", "says %d entries, but %d bytes follow", h.count, len(body)-c.pos)
	}
	if c.err != nil {
		return nil, c.err
	}
	h.rest = body[c.pos:]
	return h, nil
}

func batchKind(kind byte) Kind {
	if kind == batchResults {
		return KindResult
	}
	return KindTask
}

// table reads the shared strings with one conversion for all.
func (c *cursor) table() []shared {
	n := int(c.uvarint("table", 0, maxTable))
	if c.err != nil || n == 0 {
		return nil
	}
	start := c.pos
	var spans [maxTable]span
	for i := range n {
		spans[i] = c.span("table", MaxRoutingKeyBytes)
	}
	if c.err != nil {
		return nil
	}
	all := string(c.b[start:c.pos])
	t := make([]shared, n)
	for i := range t {
		s := all[spans[i].from-start : spans[i].to-start]
		t[i] = shared{s: s, name: s != "" && goodName(s, MaxNameBytes)}
	}
	return t
}

// each calls decode with a cursor on every entry and collects those that
// failed.
func (h *head) each(decode func(*cursor)) (bad []BadEntry) {
	rest := h.rest
	var c cursor // one for all entries: decode makes it escape
	for i := range h.count {
		if len(rest) < entryPrefix || uint64(binary.BigEndian.Uint32(rest)) > uint64(len(rest)-entryPrefix) {
			err := fmt.Errorf("%w: batch: cut off in entry %d of %d", ErrMalformed, i, h.count)
			return append(bad, BadEntry{Index: i, Err: err, Data: h.alone(h.count-i, rest)})
		}
		end := entryPrefix + int(binary.BigEndian.Uint32(rest))
		c = cursor{b: rest[entryPrefix:end:end], where: "entry", index: i}
		decode(&c)
		if c.err != nil {
			bad = append(bad, BadEntry{Index: i, Err: c.err, Data: h.alone(1, rest[:end])})
		}
		rest = rest[end:]
	}
	if len(rest) > 0 {
		err := fmt.Errorf("%w: batch: %d bytes after the last of %d entries", ErrMalformed, len(rest), h.count)
		bad = append(bad, BadEntry{Index: h.count, Err: err, Data: h.alone(0, rest)})
	}
	return bad
}

// alone makes the body of a batch that has the given bytes as its entries.
func (h *head) alone(count int, entries []byte) []byte {
	b := make([]byte, 0, len(h.raw)+len(entries)+4)
	b = append(b, h.raw...)
	b = binary.AppendUvarint(b, uint64(count))
	return append(b, entries...)
}

// cursor reads one part of a batch and keeps the first fault; after one, all
// it reads is zero.
type cursor struct {
	b     []byte
	pos   int
	where string
	index int
	err   error
}

type span struct{ from, to int }

func (c *cursor) fail(what, format string, args ...any) {
	if c.err != nil {
		return
	}
	where := c.where
	if where == "entry" {
		where = fmt.Sprintf("entry %d", c.index)
	}
	c.err = fmt.Errorf("%w: %s: %s: %s", ErrMalformed, where, what, fmt.Sprintf(format, args...))
}

func (c *cursor) byte(what string) byte {
	if c.err != nil {
		return 0
	}
	if c.pos >= len(c.b) {
		c.fail(what, "is missing")
		return 0
	}
	c.pos++
	return c.b[c.pos-1]
}

func (c *cursor) uvarint(what string, min, max uint64) uint64 {
	if c.err != nil {
		return 0
	}
	v, n := binary.Uvarint(c.b[c.pos:])
	if n <= 0 {
		c.fail(what, "is missing or not a varint")
		return 0
	}
	if v < min || v > max {
		c.fail(what, "%d is not between %d and %d", v, min, max)
		return 0
	}
	c.pos += n
	return v
}

// span passes over a string and returns where it is.
func (c *cursor) span(what string, max int) span {
	n := int(c.uvarint(what, 0, MaxBatchBytes))
	if c.err == nil && n > len(c.b)-c.pos {
		c.fail(what, "is cut off")
	}
	if c.err == nil && n > max {
		c.fail(what, "%d bytes, at most %d", n, max)
	}
	if c.err != nil {
		return span{c.pos, c.pos}
	}
	c.pos += n
	return span{c.pos - n, c.pos}
}

func (c *cursor) str(s span) string { return string(c.b[s.from:s.to]) }

// reference is a string that is in the table, or that follows.
type reference struct {
	place int
	at    span
}

func (c *cursor) reference(what string, table []shared, max int) reference {
	p := int(c.uvarint(what, 0, uint64(len(table))))
	if p > 0 {
		return reference{place: p}
	}
	return reference{at: c.span(what, max)}
}

// texts are the strings of an entry, converted at once.
type texts struct {
	c     *cursor
	table []shared
	start int
	all   string
}

func (c *cursor) texts(table []shared, start int) texts {
	return texts{c: c, table: table, start: start, all: string(c.b[start:c.pos])}
}

func (t *texts) at(s span) string { return t.all[s.from-t.start : s.to-t.start] }

func (t *texts) ref(r reference) string {
	if r.place > 0 {
		return t.table[r.place-1].s
	}
	return t.at(r.at)
}

// nameRef is ref for a required name.
func (t *texts) nameRef(what string, r reference) string {
	if r.place > 0 {
		e := &t.table[r.place-1]
		if !e.name {
			t.c.fail(what, "is empty or not a name")
		}
		return e.s
	}
	return t.name(what, r.at)
}

// name is at for a required name.
func (t *texts) name(what string, s span) string {
	v := t.at(s)
	if v == "" || !goodName(v, MaxNameBytes) {
		t.c.fail(what, "is empty or not a name")
	}
	return v
}

func (c *cursor) flags(known byte) byte {
	f := c.byte("flags")
	if f&^known != 0 {
		c.fail("flags", "unknown bits %#x", f&^known)
	}
	return f
}

func (c *cursor) taskID(id *TaskID) {
	id.Ref = int64(c.uvarint("ref", 0, maxNumber))
	id.Step = int32(c.uvarint("step index", 0, 1<<31-1))
	id.Phase = Phase(c.byte("phase"))
	if !id.Phase.Valid() {
		c.fail("phase", "%d is not a phase", uint8(id.Phase))
	}
	id.Generation = uint32(c.uvarint("generation", 1, 1<<32-1))
	id.Attempt = uint32(c.uvarint("attempt", 1, 1<<32-1))
}

// payload is all that is left of the entry.
func (c *cursor) payload() []byte {
	p := c.b[c.pos:]
	if len(p) > MaxPayloadBytes {
		c.fail("payload", "%d bytes, at most %d", len(p), MaxPayloadBytes)
	}
	if len(p) == 0 {
		return nil
	}
	return p
}

func (c *cursor) task(t *Task, h *head) {
	flags := c.flags(flagKeyIsRun | flagResent | flagProgress | flagOnePhase | flagTokens | flagUndoesRun)
	t.Resent, t.OnePhase, t.UndoesRun = flags&flagResent != 0, flags&flagOnePhase != 0, flags&flagUndoesRun != 0
	c.taskID(&t.TaskID)
	t.Shard = uint32(c.uvarint("shard", 0, MaxShards-1))
	t.Epoch = c.uvarint("epoch", 0, maxNumber)
	t.Seq = c.uvarint("seq", 1, maxNumber)
	t.Timeout = time.Duration(c.uvarint("timeout", 1, uint64(maxTimeoutMS))) * time.Millisecond
	t.NotAfter = notAfter(int64(c.uvarint("not after", 0, maxUnixMS)))
	start := c.pos
	workflow := c.reference("workflow", h.table, MaxNameBytes)
	step := c.reference("step", h.table, MaxNameBytes)
	service := c.reference("service", h.table, MaxNameBytes)
	typ := c.reference("task type", h.table, MaxNameBytes)
	run := c.span("run", MaxNameBytes)
	key := c.span("routing key", MaxRoutingKeyBytes)
	trace := c.span("trace", maxTrace)
	progress := span{c.pos, c.pos}
	if flags&flagProgress != 0 {
		progress = c.span("progress", MaxProgressBytes)
	}
	tokens := span{c.pos, c.pos}
	if flags&flagTokens != 0 {
		tokens = c.span("tokens", MaxTokensBytes)
	}
	if c.err != nil {
		return
	}
	s := c.texts(h.table, start)
	t.Workflow = s.nameRef("workflow", workflow)
	t.StepName = s.nameRef("step", step)
	t.Service = s.nameRef("service", service)
	t.Type = s.nameRef("task type", typ)
	t.RunID = s.name("run", run)
	t.RoutingKey = s.at(key)
	if !goodName(t.RoutingKey, MaxRoutingKeyBytes) {
		c.fail("routing key", "%s", nameFault(t.RoutingKey, MaxRoutingKeyBytes))
	}
	if flags&flagKeyIsRun != 0 {
		t.RoutingKey = t.RunID
	}
	t.Trace = cleanTrace(s.at(trace))
	if flags&flagProgress != 0 {
		t.Progress = cleanProgress([]byte(s.at(progress)))
	}
	if flags&flagTokens != 0 {
		var fault string
		if t.Tokens, fault = parseTokens(s.at(tokens)); fault != "" {
			c.fail("tokens", "%s", fault)
		} else if len(t.Tokens) == 0 {
			c.fail("tokens", "are empty")
		}
	}
	t.Owner = h.sender
	t.Payload = c.payload()
}

func (c *cursor) result(r *Result, h *head) {
	flags := c.flags(flagRetryable | flagResent)
	r.Retryable, r.Resent = flags&flagRetryable != 0, flags&flagResent != 0
	c.taskID(&r.TaskID)
	r.Shard = uint32(c.uvarint("shard", 0, MaxShards-1))
	r.Seq = c.uvarint("seq", 1, maxNumber)
	r.Outcome = Outcome(c.byte("outcome"))
	if !r.Outcome.Valid() {
		c.fail("outcome", "%d is not an outcome", uint8(r.Outcome))
	}
	r.Duration = time.Duration(c.uvarint("duration", 0, uint64(maxDurUS))) * time.Microsecond
	start := c.pos
	step := c.reference("step", h.table, MaxNameBytes)
	code := c.reference("code", h.table, MaxBatchBytes)
	run := c.span("run", MaxNameBytes)
	message := c.span("message", MaxBatchBytes)
	stack := c.span("stack", MaxBatchBytes)
	trace := c.span("trace", MaxBatchBytes)
	if c.err != nil {
		return
	}
	s := c.texts(h.table, start)
	r.StepName = s.nameRef("step", step)
	r.Code = cleanCode(s.ref(code))
	r.RunID = s.name("run", run)
	r.Message = cleanText(s.at(message), MaxMessageBytes)
	r.Stack = cleanText(s.at(stack), MaxStackBytes)
	r.Trace = cleanTrace(s.at(trace))
	r.Worker = h.sender
	r.Payload = c.payload()
}
