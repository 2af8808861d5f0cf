package protocol

import (
	"encoding/binary"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// A batch's body is a head and entries:
//
//	version  byte
//	kind     byte      't' or 'r'
//	durable  uvarint   tasks: the watermark; results: 0
//	sender   string    tasks: the owner; results: the worker
//	table    uvarint count, then that many strings
//	entries  uvarint count, then per entry its length (4 bytes, big endian) and its bytes
//
// A string is its length as a uvarint and its bytes. An entry is numbers, then
// strings, then the payload to its end; see appendTask and appendResult. Where
// an entry repeats a string of the table (a workflow's name, a task type), it
// has the string's place there, from 1; 0 says that the string itself follows.
// Entries depend on nothing but the head, so that a bad one fails alone.
const (
	batchTasks   = 't'
	batchResults = 'r'

	flagKeyIsRun  = 1 << 0 // task: the routing key is the run id and is not repeated
	flagRetryable = 1 << 0 // result
	flagResent    = 1 << 1 // both
	flagProgress  = 1 << 2 // task: the progress stands before the payload
	flagOnePhase  = 1 << 3 // task
	flagTokens    = 1 << 4 // task: the tokens stand before the payload
	flagUndoesRun = 1 << 5 // task

	maxTable     = 256 // strings in a table, as decoders accept it
	encodeTable  = 64  // strings that this encoder puts there
	entryPrefix  = 4
	taskNumbers  = 90 // upper bound of a task entry's bytes apart from strings and payload
	resultFixed  = 80 // the same of a result
	stringPrefix = 3  // upper bound of a string's length prefix (below 2 MiB)
)

// Size is an upper bound of what the task adds to a batch, in bytes. Senders
// add it up to keep a batch within the broker's limit of a message.
func (t *Task) Size() int {
	return taskNumbers + len(t.RunID) + len(t.Workflow) + len(t.StepName) + len(t.Service) + len(t.Type) +
		len(t.RoutingKey) + len(t.Trace) + len(t.Progress) + tokensSize(t.Tokens) + len(t.Payload) + 9*stringPrefix
}

// Size is an upper bound of what the result adds to a batch, in bytes.
func (r *Result) Size() int {
	return resultFixed + len(r.RunID) + len(r.StepName) + min(len(r.Code), MaxCodeBytes) +
		min(len(r.Message), MaxMessageBytes) + min(len(r.Stack), MaxStackBytes) + len(r.Trace) + len(r.Payload) + 6*stringPrefix
}

// table collects the strings that the entries of a batch share.
type table struct {
	s    [encodeTable]string
	n    int
	size int
}

// place returns the place of s from 1, or 0. hint is where to look first.
func (t *table) place(s string, hint int) int {
	if hint > 0 && t.s[hint-1] == s {
		return hint
	}
	for i := range t.n {
		if t.s[i] == s {
			return i + 1
		}
	}
	return 0
}

// add is place, and puts s there if there is room.
func (t *table) add(s string, hint int) int {
	if p := t.place(s, hint); p > 0 || t.n == encodeTable || len(s) > MaxNameBytes {
		return p
	}
	t.s[t.n] = s
	t.n++
	t.size += len(s) + stringPrefix
	return t.n
}

// hints remember, per field, where the last entry's string was.
type hints [4]int

// EncodeTasks lays out many tasks for one worker as one message. All are of
// the given owner, whatever their Owner says; durable is the watermark of the
// worker's results. There may be up to [MaxBatchEntries], and [MaxBatchBytes]
// in total. v is the version to write in, which the worker speaks.
func EncodeTasks(v int, queue, owner string, durable uint64, ts []*Task) broker.Message {
	var tab table
	var h hints
	size := 0
	for _, t := range ts {
		size += entryPrefix + t.Size()
		h[0] = tab.add(t.Workflow, h[0])
		h[1] = tab.add(t.StepName, h[1])
		h[2] = tab.add(t.Service, h[2])
		h[3] = tab.add(t.Type, h[3])
	}
	b := appendHead(make([]byte, 0, headSize(owner, &tab)+size), v, batchTasks, durable, owner, &tab, len(ts))
	for _, t := range ts {
		b = appendEntry(b, func(b []byte) []byte { return appendTask(b, t, &tab, &h) })
	}
	m := batchMessage(v, KindTask, owner, len(ts), b)
	m.Key = queue
	return m
}

// EncodeResults lays out many results as one message. All must be of one
// worker and for one owner, whose all their shards are: the key is the first's
// shard. There may be up to [MaxBatchEntries], and [MaxBatchBytes] in total. v is the version to write
// in, which the owner speaks.
func EncodeResults(v int, exchange string, rs []*Result) broker.Message {
	var tab table
	var h hints
	var worker, owner string
	var shard uint32
	if len(rs) > 0 {
		worker, owner, shard = rs[0].Worker, rs[0].Owner, rs[0].Shard
	}
	size := 0
	for _, r := range rs {
		size += entryPrefix + r.Size()
		h[0] = tab.add(r.StepName, h[0])
		h[1] = tab.add(cleanCode(r.Code), h[1])
	}
	b := appendHead(make([]byte, 0, headSize(worker, &tab)+size), v, batchResults, 0, worker, &tab, len(rs))
	for _, r := range rs {
		b = appendEntry(b, func(b []byte) []byte { return appendResult(b, r, &tab, &h) })
	}
	m := batchMessage(v, KindResult, worker, len(rs), b)
	m.Exchange, m.Key = exchange, ShardKey(shard)
	putText(m.Headers, HeaderOwner, owner)
	return m
}

func batchMessage(v int, k Kind, sender string, count int, body []byte) broker.Message {
	return broker.Message{
		Mandatory:   true,
		Type:        string(k),
		ContentType: ContentTypeBatch,
		AppID:       cut(sender, MaxNameBytes),
		Headers:     map[string]any{HeaderVersion: int64(v), HeaderCount: int64(count)},
		Body:        body,
	}
}

func headSize(sender string, tab *table) int { return 32 + len(sender) + tab.size }

func appendHead(b []byte, v int, kind byte, durable uint64, sender string, tab *table, count int) []byte {
	b = append(b, byte(v), kind)
	b = binary.AppendUvarint(b, durable)
	b = appendString(b, sender)
	b = binary.AppendUvarint(b, uint64(tab.n))
	for _, s := range tab.s[:tab.n] {
		b = appendString(b, s)
	}
	return binary.AppendUvarint(b, uint64(count))
}

// appendEntry appends what fill appends, with its length before it.
func appendEntry(b []byte, fill func([]byte) []byte) []byte {
	start := len(b)
	b = fill(append(b, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[start:], uint32(len(b)-start-entryPrefix))
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// appendShared appends a string that may be in the table.
func appendShared(b []byte, s string, tab *table, hint *int) []byte {
	*hint = tab.place(s, *hint)
	b = binary.AppendUvarint(b, uint64(*hint))
	if *hint == 0 {
		b = appendString(b, s)
	}
	return b
}

func appendTaskID(b []byte, id *TaskID) []byte {
	b = binary.AppendUvarint(b, uint64(id.Ref))
	b = binary.AppendUvarint(b, uint64(uint32(id.Step)))
	b = append(b, byte(id.Phase))
	b = binary.AppendUvarint(b, uint64(id.Generation))
	return binary.AppendUvarint(b, uint64(id.Attempt))
}

func appendTask(b []byte, t *Task, tab *table, h *hints) []byte {
	var flags byte
	key := t.RoutingKey
	if key == t.RunID {
		flags, key = flagKeyIsRun, ""
	}
	if t.Resent {
		flags |= flagResent
	}
	progress := cleanProgress(t.Progress)
	if progress != nil {
		flags |= flagProgress
	}
	if t.OnePhase {
		flags |= flagOnePhase
	}
	if len(t.Tokens) > 0 {
		flags |= flagTokens
	}
	if t.UndoesRun {
		flags |= flagUndoesRun
	}
	b = append(b, flags)
	b = appendTaskID(b, &t.TaskID)
	b = binary.AppendUvarint(b, uint64(t.Shard))
	b = binary.AppendUvarint(b, t.Epoch)
	b = binary.AppendUvarint(b, t.Seq)
	b = binary.AppendUvarint(b, uint64(timeoutMS(t.Timeout)))
	b = binary.AppendUvarint(b, unixMS(t.NotAfter))
	b = appendShared(b, t.Workflow, tab, &h[0])
	b = appendShared(b, t.StepName, tab, &h[1])
	b = appendShared(b, t.Service, tab, &h[2])
	b = appendShared(b, t.Type, tab, &h[3])
	b = appendString(b, t.RunID)
	b = appendString(b, key)
	b = appendString(b, cleanTrace(t.Trace))
	if progress != nil {
		b = appendString(b, string(progress))
	}
	if len(t.Tokens) > 0 {
		b = appendString(b, formatTokens(t.Tokens))
	}
	return append(b, t.Payload...)
}

func unixMS(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixMilli())
}

func appendResult(b []byte, r *Result, tab *table, h *hints) []byte {
	var flags byte
	if r.Retryable {
		flags = flagRetryable
	}
	if r.Resent {
		flags |= flagResent
	}
	b = append(b, flags)
	b = appendTaskID(b, &r.TaskID)
	b = binary.AppendUvarint(b, uint64(r.Shard))
	b = binary.AppendUvarint(b, r.Seq)
	b = append(b, byte(r.Outcome))
	b = binary.AppendUvarint(b, uint64(durationUS(r.Duration)))
	b = appendShared(b, r.StepName, tab, &h[0])
	b = appendShared(b, cleanCode(r.Code), tab, &h[1])
	b = appendString(b, r.RunID)
	b = appendString(b, cleanText(r.Message, MaxMessageBytes))
	b = appendString(b, cleanText(r.Stack, MaxStackBytes))
	b = appendString(b, cleanTrace(r.Trace))
	return append(b, r.Payload...)
}
