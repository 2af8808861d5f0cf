package archive

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/store"
)

// Format is the version of the format that this package writes, and the only one
// that it reads.
const Format = 1

// Kinds of files.
const (
	KindExport  = "export"  // written in one go, with an end
	KindArchive = "archive" // runs that a daemon has removed; it has no end
)

// Line is one line of a file. One of its members is set.
type Line struct {
	Header    *Header           `json:"ringmaster,omitempty"`
	Workflow  *Workflow         `json:"workflow,omitempty"`
	Run       *Run              `json:"run,omitempty"`
	Tombstone *Tombstone        `json:"tombstone,omitempty"`
	Workers   map[string]string `json:"workers,omitempty"` // that may hold tasks, with their services
	End       *Counts           `json:"end,omitempty"`
}

// Header is the first line.
type Header struct {
	Format  int       `json:"format"`
	Kind    string    `json:"kind"`
	Written time.Time `json:"written"`
	Release string    `json:"release,omitempty"`
}

// Counts is how many there are of each kind of line.
type Counts struct {
	Workflows  int `json:"workflows"`
	Runs       int `json:"runs"`
	Tombstones int `json:"tombstones"`
}

func (c *Counts) add(l *Line) {
	switch {
	case l.Workflow != nil:
		c.Workflows++
	case l.Run != nil:
		c.Runs++
	case l.Tombstone != nil:
		c.Tombstones++
	}
}

// Workflow is a version of a definition.
type Workflow struct {
	Name       string          `json:"name"`
	Version    string          `json:"version"`
	Kind       string          `json:"kind"`
	Registered time.Time       `json:"registered"`
	Active     bool            `json:"active,omitempty"`
	Definition json.RawMessage `json:"definition"`
}

// Run is a run's row with its history. Where the run is, its shard and number,
// is not part of it.
type Run struct {
	ID         string            `json:"id"`
	Workflow   string            `json:"workflow"`
	Version    string            `json:"version"`
	Status     string            `json:"status"`
	Waived     bool              `json:"waived,omitempty"`
	Key        string            `json:"key"`
	InputHash  string            `json:"input_hash"` // hex
	Tags       map[string]string `json:"tags,omitempty"`
	RetryOf    string            `json:"retry_of,omitempty"`
	Parent     string            `json:"parent,omitempty"`
	ParentStep string            `json:"parent_step,omitempty"`
	Created    time.Time         `json:"created"`
	Updated    time.Time         `json:"updated"`
	Ended      *time.Time        `json:"ended,omitempty"`
	Wake       *time.Time        `json:"wake,omitempty"`
	FailedStep string            `json:"failed_step,omitempty"`
	Error      string            `json:"error,omitempty"`
	History    []Record          `json:"history"`
}

// Record is a row of history, as it is stored.
type Record struct {
	Seq  uint64 `json:"seq"`
	Data []byte `json:"data"` // base64
}

// Tombstone is what is known of a run that was removed, or (without a workflow)
// an id that was presumed aborted.
type Tombstone struct {
	ID        string     `json:"id"`
	Status    string     `json:"status"`
	Buried    time.Time  `json:"buried"`
	Until     *time.Time `json:"until,omitempty"`
	Workflow  string     `json:"workflow,omitempty"`
	Version   string     `json:"version,omitempty"`
	InputHash string     `json:"input_hash,omitempty"`
	Waived    bool       `json:"waived,omitempty"`
	Created   *time.Time `json:"created,omitempty"`
	Ended     *time.Time `json:"ended,omitempty"`
}

// writeLine writes a line, whole or with an error.
func writeLine(w io.Writer, l *Line) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(l); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

// LineOf makes the line of a run.
func LineOf(u *store.Unfinished) *Line {
	r := &u.Run
	out := &Run{
		ID: r.ID, Workflow: r.Workflow, Version: r.Version, Status: machine.Status(r.Status).String(), Waived: r.Waived,
		Key: r.Key, InputHash: hex.EncodeToString(r.InputHash[:]), Tags: r.Tags, RetryOf: r.RetryOf,
		Parent: r.Parent, ParentStep: r.ParentStep, Created: r.Created.UTC(), Updated: r.Updated.UTC(),
		Ended: optional(r.Ended), Wake: optional(r.Wake), FailedStep: r.FailedStep, Error: r.Error,
		History: make([]Record, len(u.History)),
	}
	for i, rec := range u.History {
		out.History[i] = Record{Seq: rec.Seq, Data: rec.Data}
	}
	return &Line{Run: out}
}

func tombstoneLine(t *store.Tombstone) *Line {
	out := &Tombstone{
		ID: t.ID, Status: machine.Status(t.Status).String(), Buried: t.Buried.UTC(), Until: optional(t.Until),
		Workflow: t.Workflow, Version: t.Version, Waived: t.Waived, Created: optional(t.Created), Ended: optional(t.Ended),
	}
	if t.Workflow != "" {
		out.InputHash = hex.EncodeToString(t.InputHash[:])
	}
	return &Line{Tombstone: out}
}

func workflowLine(w *store.WorkflowInfo, definition []byte) *Line {
	return &Line{Workflow: &Workflow{
		Name: w.Name, Version: w.Version, Kind: w.Kind, Registered: w.Registered.UTC(), Active: w.Active, Definition: definition,
	}}
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// row is the run's row, without its place.
func (r *Run) row() (store.Run, error) {
	out := store.Run{
		ID: r.ID, Workflow: r.Workflow, Version: r.Version, Status: statusOf(r.Status), Waived: r.Waived, Key: r.Key,
		Tags: r.Tags, RetryOf: r.RetryOf, Parent: r.Parent, ParentStep: r.ParentStep, Created: r.Created.UTC(),
		Updated: r.Updated.UTC(), Ended: orZero(r.Ended), Wake: orZero(r.Wake), FailedStep: r.FailedStep, Error: r.Error,
	}
	if len(out.Tags) == 0 {
		out.Tags = nil
	}
	var err error
	out.InputHash, err = hashOf(r.InputHash)
	switch {
	case err != nil:
		return out, err
	case out.Status == 0:
		return out, fmt.Errorf("status: %q is not one", r.Status)
	case out.Status.Final() != (r.Ended != nil):
		return out, errors.New("ended: is there if and only if the status is final")
	case out.Status.Final() && r.Wake != nil:
		return out, errors.New("wake: a run that has ended does not sleep")
	}
	return out, errors.Join(checkName("id", r.ID, maxIDBytes), checkName("workflow", r.Workflow, maxNameBytes),
		checkName("version", r.Version, maxNameBytes), checkText("key", r.Key, maxKeyBytes), checkText("retry_of", r.RetryOf, maxIDBytes),
		checkText("parent", r.Parent, maxIDBytes), checkText("parent_step", r.ParentStep, maxNameBytes),
		checkText("failed_step", r.FailedStep, maxTextBytes), checkText("error", r.Error, maxTextBytes),
		needTime("created", r.Created), needTime("updated", r.Updated), inTime("ended", out.Ended), inTime("wake", out.Wake),
		checkTags(r.Tags))
}

// row is the tombstone's row, without its shard.
func (t *Tombstone) row() (store.Tombstone, error) {
	out := store.Tombstone{
		ID: t.ID, Status: statusOf(t.Status), Buried: t.Buried.UTC(), Until: orZero(t.Until), Workflow: t.Workflow,
		Version: t.Version, Waived: t.Waived, Created: orZero(t.Created), Ended: orZero(t.Ended),
	}
	if !out.Status.Final() {
		return out, fmt.Errorf("status: %q is not a final one", t.Status)
	}
	err := errors.Join(checkName("id", t.ID, maxIDBytes), needTime("buried", t.Buried), inTime("until", out.Until),
		inTime("created", out.Created), inTime("ended", out.Ended))
	if t.Workflow == "" {
		if t.Version != "" || t.InputHash != "" || t.Created != nil || t.Ended != nil || t.Waived {
			err = errors.Join(err, errors.New("workflow: is missing"))
		}
		return out, err
	}
	hash, bad := hashOf(t.InputHash)
	out.InputHash = hash
	return out, errors.Join(err, bad, checkName("workflow", t.Workflow, maxNameBytes), checkName("version", t.Version, maxNameBytes))
}

func hashOf(text string) (h [16]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(h) {
		return h, errors.New("input_hash: expected 32 hexadecimal digits")
	}
	copy(h[:], b)
	return h, nil
}

func statusOf(text string) store.Status {
	for s := store.StatusRunning; s <= store.StatusAborted; s++ {
		if machine.Status(s).String() == text {
			return s
		}
	}
	return 0
}
