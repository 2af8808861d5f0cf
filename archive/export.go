package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

// Filter selects what is exported. The zero value selects all that has ended.
type Filter struct {
	All      bool // also runs that have not ended
	Workflow string
	Statuses []store.Status
	Since    time.Time // created at or after
	Until    time.Time // created before
}

func (f *Filter) run(r *store.Run) bool {
	return (f.All || r.Status.Final()) && f.matches(r.Workflow, r.Status, r.Created)
}

func (f *Filter) tombstone(t *store.Tombstone) bool {
	if t.Workflow == "" { // there never was a run
		return f.Workflow == "" && len(f.Statuses) == 0 && f.Since.IsZero() && f.Until.IsZero()
	}
	return f.matches(t.Workflow, t.Status, t.Created)
}

func (f *Filter) matches(workflow string, status store.Status, created time.Time) bool {
	return (f.Workflow == "" || f.Workflow == workflow) &&
		(len(f.Statuses) == 0 || slices.Contains(f.Statuses, status)) &&
		(f.Since.IsZero() || !created.Before(f.Since)) && (f.Until.IsZero() || created.Before(f.Until))
}

// Exporter reads a store in pages, each of which is a number of lines. It holds
// nothing between them, and is safe for concurrent use.
type Exporter struct {
	Store  store.Store
	Filter Filter
}

// Sizes of pages.
const (
	scanRows   = 500     // rows looked at in one page
	loadRuns   = 16      // runs read with their histories at once
	pageBytes  = 4 << 20 // after which a page ends
	buriedRows = 500
	noteOfHeld = "workers/" // under which engines note which workers may hold their tasks
)

// ErrBadCursor: not a cursor that a page gave out.
var ErrBadCursor = store.ErrBadCursor

// Page writes the page of a cursor ("" is the first) and returns the cursor of
// the next, or "" after the last. A page may be empty and not the last. Runs come
// in the order in which their shards numbered them.
func (x *Exporter) Page(ctx context.Context, cursor string, w io.Writer) (next string, err error) {
	switch kind, place, _ := strings.Cut(cursor, ":"); kind {
	case "":
		if err := x.definitions(ctx, w); err != nil {
			return "", err
		}
		return "r:0:0", nil
	case "r":
		shard, ref, ok := runCursor(place)
		if !ok || shard >= x.Store.Shards() {
			return "", ErrBadCursor
		}
		return x.runs(ctx, shard, ref, w)
	case "t":
		return x.tombstones(ctx, place, w)
	}
	return "", ErrBadCursor
}

func runCursor(text string) (shard uint32, ref int64, ok bool) {
	a, b, found := strings.Cut(text, ":")
	n, err := strconv.ParseUint(a, 10, 32)
	ref, err2 := strconv.ParseInt(b, 10, 64)
	return uint32(n), ref, found && err == nil && err2 == nil
}

// definitions writes what must be known before any run.
func (x *Exporter) definitions(ctx context.Context, w io.Writer) error {
	infos, err := x.Store.Workflows(ctx)
	if err != nil {
		return err
	}
	for _, info := range slices.Backward(infos) { // the oldest first
		if x.Filter.Workflow != "" && x.Filter.Workflow != info.Name && !x.Filter.All {
			continue
		}
		_, definition, err := x.Store.Workflow(ctx, info.Name, info.Version)
		if err != nil {
			return err
		}
		if err := writeLine(w, workflowLine(&info, definition)); err != nil {
			return err
		}
	}
	if !x.Filter.All {
		return nil
	}
	notes, err := x.Store.Notes(ctx, noteOfHeld)
	if err != nil {
		return err
	}
	held := map[string]string{}
	for name, note := range notes {
		var of map[string]string
		if err := json.Unmarshal(note, &of); err != nil {
			return fmt.Errorf("note %s: %w", name, err)
		}
		maps.Copy(held, of)
	}
	if len(held) == 0 {
		return nil
	}
	return writeLine(w, &Line{Workers: held})
}

func (x *Exporter) runs(ctx context.Context, shard uint32, after int64, w io.Writer) (next string, err error) {
	rows, err := x.Store.Runs(ctx, shard, after, scanRows)
	if err != nil {
		return "", err
	}
	out := &counter{w: w}
	var refs []int64
	for i := range rows {
		after = rows[i].Ref
		if x.Filter.run(&rows[i]) {
			refs = append(refs, rows[i].Ref)
		}
		if len(refs) == loadRuns || i == len(rows)-1 {
			if err := x.load(ctx, refs, out); err != nil {
				return "", err
			}
			if refs = refs[:0]; out.n >= pageBytes {
				return fmt.Sprintf("r:%d:%d", shard, after), nil
			}
		}
	}
	switch {
	case len(rows) == scanRows:
		return fmt.Sprintf("r:%d:%d", shard, after), nil
	case shard+1 < x.Store.Shards():
		return fmt.Sprintf("r:%d:0", shard+1), nil
	}
	return "t:", nil
}

func (x *Exporter) load(ctx context.Context, refs []int64, w io.Writer) error {
	runs, err := x.Store.Load(ctx, refs)
	if err != nil {
		return err
	}
	for i := range runs {
		if !x.Filter.run(&runs[i].Run) {
			continue // since then its status is another
		}
		if err := writeLine(w, LineOf(&runs[i])); err != nil {
			return fmt.Errorf("run %s: %w", runs[i].Run.ID, err)
		}
	}
	return nil
}

func (x *Exporter) tombstones(ctx context.Context, after string, w io.Writer) (next string, err error) {
	tombs, err := x.Store.Buried(ctx, after, buriedRows)
	if err != nil {
		return "", err
	}
	for i := range tombs {
		if !x.Filter.tombstone(&tombs[i]) {
			continue
		}
		if err := writeLine(w, tombstoneLine(&tombs[i])); err != nil {
			return "", err
		}
	}
	if len(tombs) < buriedRows {
		return "", nil
	}
	return "t:" + tombs[len(tombs)-1].ID, nil
}

type counter struct {
	w io.Writer
	n int
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += n
	return n, err
}

// Pages returns the lines of a page, and the cursor of the next.
type Pages func(ctx context.Context, cursor string, w io.Writer) (next string, err error)

// Export writes a whole file, of pages from wherever they come. progress, if not
// nil, is told after each page what has been written.
func Export(ctx context.Context, pages Pages, release string, w io.Writer, progress func(Counts)) (Counts, error) {
	var n Counts
	header := &Header{Format: Format, Kind: KindExport, Written: time.Now().UTC().Truncate(time.Millisecond), Release: release}
	if err := writeLine(w, &Line{Header: header}); err != nil {
		return n, err
	}
	for cursor := ""; ; {
		next, err := pages(ctx, cursor, &tally{w: w, n: &n})
		if err != nil {
			return n, err
		}
		if progress != nil {
			progress(n)
		}
		if next == "" {
			return n, writeLine(w, &Line{End: &n})
		}
		if next == cursor {
			return n, errors.New("the export does not go on")
		}
		cursor = next
	}
}

// tally counts the lines that pass, by what they begin with.
type tally struct {
	w    io.Writer
	n    *Counts
	head []byte // of the line at hand
}

func (t *tally) Write(b []byte) (int, error) {
	for _, c := range b {
		if len(t.head) < 16 {
			t.head = append(t.head, c)
		}
		if c == '\n' {
			switch head := string(t.head); {
			case strings.HasPrefix(head, `{"workflow"`):
				t.n.Workflows++
			case strings.HasPrefix(head, `{"run"`):
				t.n.Runs++
			case strings.HasPrefix(head, `{"tombstone"`):
				t.n.Tombstones++
			}
			t.head = t.head[:0]
		}
	}
	return t.w.Write(b)
}
