// Package store is the port to durable state.
//
// A run's history is append-only and is the truth: [Record]s of encoded
// events, clustered by run. A small row per run ([Run]) serves lists and
// recovery and changes only when the run's status or wake-up time does.
// Everything is written by [Store.Commit], which makes one transaction of the
// parts of many shards, so that one fsync serves whatever gathered during the
// last one. Implementations are in store/sqlite and store/postgres;
// store/storetest is the suite that all pass.
package store

import (
	"context"
	"errors"
	"time"

	"github.com/cespare/xxhash/v2"
)

var (
	// ErrNotFound: there is no such run, workflow or version.
	ErrNotFound = errors.New("not found")
	// ErrStaleEpoch: the shard has a newer owner; nothing of the part was written.
	ErrStaleEpoch = errors.New("stale epoch")
	// ErrDuplicate: a run or a tombstone with this id, or a record with this
	// number, exists; nothing of the part was written.
	ErrDuplicate = errors.New("duplicate")
	// ErrUnended: the part removes a run that has not ended; nothing of it was written.
	ErrUnended = errors.New("run has not ended")
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("store is in use by another process")
	// ErrNewerSchema: the store was written by a newer version of Ringmaster.
	ErrNewerSchema = errors.New("store has a newer schema")
	// ErrShardCount: the store was made with another number of shards.
	ErrShardCount = errors.New("store has another number of shards")
	// ErrBadCursor: a list cursor is not one that this store gave out.
	ErrBadCursor = errors.New("bad cursor")
)

// Status is a run's status as its row holds it.
type Status uint8

// The statuses. Those from StatusSucceeded on are final.
const (
	StatusRunning Status = iota + 1
	StatusCompensating
	StatusStalled
	StatusSucceeded
	StatusCompensated
	StatusCommitted
	StatusAborted
)

// Final tells whether a run with this status has ended.
func (s Status) Final() bool { return s >= StatusSucceeded }

// Run is a run's row.
type Run struct {
	// Ref numbers the run. The shard's owner assigns it: it is
	// int64(Shard)<<40 | a counter that grows from 1 (see [RefBase]).
	Ref        int64
	ID         string
	Shard      uint32
	Workflow   string // name
	Version    string // of the definition, as in PutWorkflow
	Status     Status
	Waived     bool   // a compensation was skipped by an operator
	Key        string // routing key
	InputHash  [16]byte
	Tags       map[string]string // nil is none
	RetryOf    string            // id of the run that this one retries; or empty
	Parent     string            // id of the run of which this one is a child; or empty
	ParentStep string            // and the step of it that this run is
	Created    time.Time         // ms precision, as are all times here
	Updated    time.Time         // of the last change of this row
	Ended      time.Time         // zero until final
	Wake       time.Time         // zero: not asleep
	FailedStep string            // the step that turned or stalled the run; or empty
	Error      string            // its error code and message, short; or empty
}

// RefBase is the lowest Ref of a shard, exclusive.
func RefBase(shard uint32) int64 { return int64(shard) << 40 }

// ShardOf is the shard of whatever is found by a name: a run by its id, a lock or
// the lease of a routing key by its name. It is the same in every process and
// version: rows are kept by it.
func ShardOf(name string, shards uint32) uint32 {
	return uint32(xxhash.Sum64String(name) % uint64(shards))
}

// Update changes a run's row. All fields are written.
type Update struct {
	Ref        int64
	Status     Status
	Waived     bool
	Updated    time.Time
	Ended      time.Time
	Wake       time.Time
	FailedStep string
	Error      string
}

// Record is one row of history: the events of one decision.
type Record struct {
	Ref  int64
	Seq  uint64 // of its first event within the run, from 1
	Data []byte
	// DropFrom, if not zero, makes this record a checkpoint: the run's records
	// with DropFrom <= number < Seq are removed with the same commit.
	DropFrom uint64
}

// Tombstone takes the place of a run that is not there, so that its id cannot
// be that of another run, and tells how it ended or counts as ended. A run that
// was removed leaves one; a run that nobody had heard of when its decision was
// asked for gets one, as aborted.
type Tombstone struct {
	ID     string
	Shard  uint32
	Status Status    // final
	Buried time.Time // ms precision, as are all times here
	Until  time.Time // it may be removed from then on; zero: never
	// Of a run that was removed; all are zero where there never was one.
	Workflow  string // name
	Version   string // of the definition, which is registered
	InputHash [16]byte
	Waived    bool
	Created   time.Time
	Ended     time.Time
}

// Part is what one shard commits.
type Part struct {
	Shard  uint32
	Epoch  uint64
	Create []Run
	Append []Record
	Update []Update
	Locks  []Lock
	// Remove removes ended runs by their Ref, with their histories. A part that
	// removes a run has no other rows of it, and may bury it: Bury goes after.
	Remove []int64
	Bury   []Tombstone
	// Forget removes tombstones of the shard by their ids. It goes last.
	Forget []string
}

// Lock is the row of a named lock: its queue, in an encoding that the store does
// not know. There is a row as long as the lock is held. The lock belongs to one
// shard, whose owner writes the row whole.
type Lock struct {
	Name string
	Data []byte // empty: the row is removed
}

// Rows is the number of rows that a part writes.
func (p *Part) Rows() int {
	return len(p.Create) + len(p.Append) + len(p.Update) + len(p.Locks) +
		len(p.Remove) + len(p.Bury) + len(p.Forget)
}

// WorkflowInfo describes one registered version of a workflow.
type WorkflowInfo struct {
	Name       string
	Version    string
	Kind       string
	Registered time.Time
	Active     bool // new runs use it
}

// Filter selects runs of a list. Zero fields select everything.
type Filter struct {
	Workflow   string
	Statuses   []Status
	Key        string
	TagName    string
	TagValue   string // counts only with TagName; empty is any value
	IDPrefix   string
	FailedStep string
	Parent     string    // children of this run
	Since      time.Time // Created at or after
	Until      time.Time // Created before
	Limit      int       // 1 to 1,000, and more is 1,000; 0 is 50
	Cursor     string    // from the page before
}

// Page is one page of a list, newest first.
type Page struct {
	Runs []Run
	Next string // cursor; empty on the last page
}

// EndedPlace is a place in the order in which a shard's runs ended. The zero
// value is before all of them.
type EndedPlace struct {
	Ended time.Time
	Ref   int64 // of runs that ended at the same time, in order of Ref
}

// Counts is the number of runs by workflow name and status.
type Counts map[string]map[Status]int64

// Unfinished is a run that has not ended, with its whole history.
type Unfinished struct {
	Run     Run
	History []Record
}

// Store is durable state. It is safe for concurrent use, but Commit is called
// by one goroutine at a time.
type Store interface {
	// Shards is the fixed number of shards.
	Shards() uint32

	// Acquire makes owner the owner of a shard under a new epoch, higher than
	// any before and at least the time in Unix seconds (so that a store that
	// was restored from a copy supersedes what workers knew), and returns it
	// with the highest Ref that the shard ever had (RefBase if none), runs that
	// were removed included.
	Acquire(ctx context.Context, shard uint32, owner string) (epoch uint64, lastRef int64, err error)
	// Owner tells who acquired a shard last, and its epoch; "" and 0 if nobody has.
	Owner(ctx context.Context, shard uint32) (owner string, epoch uint64, err error)

	// Commit writes all parts in one transaction and returns once they are
	// durable. errs is nil when every part was written; otherwise it has an
	// entry per part, and a part with ErrStaleEpoch, ErrDuplicate or ErrUnended
	// left nothing behind. err tells that the transaction as a whole failed and
	// that what is on disk is unknown: the caller must stop using the store.
	// A part's epoch is checked inside the transaction. Within a part, Create
	// goes before Append, and Append before Update. A part with a run or
	// tombstone of a workflow version that is not registered, or with a
	// record of a run that does not exist, is left out with ErrNotFound; an
	// update of a run that does not exist changes nothing, and neither does the
	// removal of a run or of a tombstone that the shard does not have. An id is
	// that of one run or of one tombstone; that of a run which the part removes
	// is free for its Bury. Of two parts in conflict with each other, the first
	// is written. Of several rows of one lock the last counts.
	Commit(parts []Part) (errs []error, err error)

	// Run returns the row of a run by its id: ErrNotFound.
	Run(ctx context.Context, id string) (Run, error)
	// RunByRef returns the row of a run by its number: ErrNotFound.
	RunByRef(ctx context.Context, ref int64) (Run, error)
	// Lookup returns the rows of those ids that exist, in any order.
	Lookup(ctx context.Context, ids []string) ([]Run, error)
	// Tombstones returns those of the ids that have one, in any order.
	Tombstones(ctx context.Context, ids []string) ([]Tombstone, error)
	// History returns a run's records in order.
	History(ctx context.Context, ref int64) ([]Record, error)
	// Load returns rows and histories of many runs at once; absent ones are
	// left out. Ordered by Ref.
	Load(ctx context.Context, refs []int64) ([]Unfinished, error)
	// Unfinished returns up to limit runs of a shard that have not ended,
	// whose Ref is above after and that do not sleep past wakeBefore, in order
	// of Ref, with their histories.
	Unfinished(ctx context.Context, shard uint32, after int64, wakeBefore time.Time, limit int) ([]Unfinished, error)
	// Due returns up to limit numbers of unfinished runs of a shard with a
	// Wake time at or before t, earliest first.
	Due(ctx context.Context, shard uint32, t time.Time, limit int) ([]int64, error)
	// Runs returns up to limit runs of a shard whose Ref is above after, in
	// order of Ref.
	Runs(ctx context.Context, shard uint32, after int64, limit int) ([]Run, error)
	// Ended returns up to limit runs of a shard that ended before a time, in the
	// order in which they ended, from those after a place in that order.
	Ended(ctx context.Context, shard uint32, before time.Time, after EndedPlace, limit int) ([]Run, error)
	// Expired returns the ids of up to limit tombstones of a shard that may be
	// removed at t, in order of Until, then id (byte by byte).
	Expired(ctx context.Context, shard uint32, t time.Time, limit int) ([]string, error)
	// Buried returns up to limit tombstones, of all shards, whose ids are above
	// after (byte by byte), in order of their ids.
	Buried(ctx context.Context, after string, limit int) ([]Tombstone, error)
	// Locks returns up to limit locks of a shard whose names are above after
	// (byte by byte), in order of their names.
	Locks(ctx context.Context, shard uint32, after string, limit int) ([]Lock, error)
	// Lock returns the row of a lock of a shard: ErrNotFound.
	Lock(ctx context.Context, shard uint32, name string) (Lock, error)
	// List returns a page of runs, newest first (by Created, then Ref).
	List(ctx context.Context, f Filter) (Page, error)
	// Counts returns the number of runs by workflow and status.
	Counts(ctx context.Context) (Counts, error)
	// Unended returns the number of a shard's runs that have not ended, by
	// workflow and status. Its cost grows with that number.
	Unended(ctx context.Context, shard uint32) (Counts, error)

	// PutWorkflow registers a definition's canonical JSON under its name and
	// version. It is idempotent; the first registration of a version activates
	// it, repeating an older one does not. created tells whether it was new.
	PutWorkflow(ctx context.Context, w WorkflowInfo, definition []byte) (info WorkflowInfo, created bool, err error)
	// ActivateWorkflow makes new runs of name use version: ErrNotFound.
	ActivateWorkflow(ctx context.Context, name, version string) error
	// Workflow returns a definition; version "" is the active one: ErrNotFound.
	Workflow(ctx context.Context, name, version string) (WorkflowInfo, []byte, error)
	// Workflows lists every version of every workflow, by name, newest first.
	Workflows(ctx context.Context) ([]WorkflowInfo, error)

	// SetNote durably keeps a small value under a name, in place of the one
	// before: what an orchestrator wants to find again at its next start. A nil
	// value removes the note.
	SetNote(ctx context.Context, name string, value []byte) error
	// Note returns the value kept under a name; nil if there is none.
	Note(ctx context.Context, name string) ([]byte, error)
	// Notes returns all notes whose names begin with prefix, by name.
	Notes(ctx context.Context, prefix string) (map[string][]byte, error)

	// Check verifies that the store answers and is sound, for `doctor` and
	// readiness. It is cheap.
	Check(ctx context.Context) error
	// Close waits for reads in progress and releases the store.
	Close() error
}
