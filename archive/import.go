package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/google/uuid"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/store"
)

// ImportConfig says where to, and how. Store is required.
type ImportConfig struct {
	Store store.Store
	// Own is called before anything of a shard is written, once for each. It
	// makes sure that nobody else owns the shard, or returns an error. Nil: the
	// store can be open once only.
	Own func(ctx context.Context, shard uint32) error
	// MaxLineBytes bounds a line; zero is DefaultMaxLineBytes.
	MaxLineBytes int
	// Conflict is told of each line that is left out because something else is
	// there; nil: nobody is.
	Conflict func(Conflict)
	// Progress, if not nil, is told after each batch what has been done.
	Progress func(Report)
	// Logger gets what an operator should know; nil discards it.
	Logger *slog.Logger
}

// Conflict is a line that was left out.
type Conflict struct {
	Line int
	ID   string
	Why  string
}

// Report is what an import has done.
type Report struct {
	Workflows  int // registered
	Runs       int // written
	Unended    int // of these, that have not ended
	Restored   int // of these, that had been removed
	Tombstones int // written
	Left       int // lines whose content was there
	Conflicts  int // lines that were left out
}

// Sizes of batches: what comes first.
const (
	batchRuns  = 200
	batchBytes = 8 << 20
)

// Import reads a file into a store. Runs get new numbers, in the shards that the
// store has for their ids. What is there with the same content is left, so an
// import can be repeated; a run that was removed comes back. What contradicts
// something that is there is left out and reported.
//
// Each line is checked, and each run folded, before the batch that it belongs to
// is written. At the first that breaks a rule the import ends with a *LineError;
// batches before it stay.
//
// Runs that have not ended go on once an orchestrator opens the store: they must
// not go on where they came from.
func Import(ctx context.Context, cfg ImportConfig, in io.Reader) (Report, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	im := &importer{
		ImportConfig: cfg, owner: "import-" + uuid.NewString()[:8], workflows: map[[2]string]*definitions.Workflow{},
		new: map[string]bool{}, shards: map[uint32]*place{}, ids: map[string]bool{},
	}
	r := NewReader(in, cfg.MaxLineBytes)
	for {
		l, err := r.Next()
		if errors.Is(err, io.EOF) {
			return im.report, im.flush(ctx)
		}
		if err != nil {
			if errors.Is(err, ErrCutOff) { // what is there is whole
				err = errors.Join(err, im.flush(ctx))
			}
			return im.report, err
		}
		if err := im.take(ctx, l, r.Line()); err != nil {
			return im.report, err
		}
	}
}

// importer is an import under way.
type importer struct {
	ImportConfig
	owner     string // under which shards are taken
	report    Report
	workflows map[[2]string]*definitions.Workflow // that are registered, by name and version
	new       map[string]bool                     // names that the store had no version of
	shards    map[uint32]*place

	// The batch at hand:
	runs  []pending
	tombs []pendingTombstone
	ids   map[string]bool
	bytes int
}

// place is a shard that was taken.
type place struct {
	epoch uint64
	last  int64 // number that was given last
}

// pendingTombstone is a tombstone of the batch.
type pendingTombstone struct {
	line int
	row  store.Tombstone
}

// take adds a line to the batch, or does what it says.
func (im *importer) take(ctx context.Context, l *Line, line int) error {
	var err error
	switch {
	case l.Workflow != nil:
		err = im.workflow(ctx, l.Workflow)
	case l.Workers != nil:
		err = im.workers(ctx, l.Workers)
	case l.Run != nil:
		if err = im.room(ctx, l.Run.ID); err != nil {
			return err
		}
		var p pending
		if p, err = im.fold(ctx, l.Run); err == nil {
			p.line = line
			im.runs = append(im.runs, p)
			im.bytes += p.bytes
		}
	case l.Tombstone != nil:
		if err = im.room(ctx, l.Tombstone.ID); err != nil {
			return err
		}
		var t store.Tombstone
		if t, err = l.Tombstone.row(); err == nil && t.Workflow != "" {
			_, err = im.version(ctx, t.Workflow, t.Version)
		}
		im.tombs = append(im.tombs, pendingTombstone{line, t})
	}
	if err != nil {
		return &LineError{line, err}
	}
	return nil
}

// room writes the batch if it is full, or has the id already.
func (im *importer) room(ctx context.Context, id string) error {
	if len(im.runs)+len(im.tombs) >= batchRuns || im.bytes >= batchBytes || im.ids[id] {
		if err := im.flush(ctx); err != nil {
			return err
		}
	}
	im.ids[id] = true
	return nil
}

// workflow registers a version. It becomes the active one if the file says so
// and the store did not know the name.
func (im *importer) workflow(ctx context.Context, w *Workflow) error {
	wf, err := definitions.Parse(w.Definition)
	if err != nil {
		return fmt.Errorf("workflow.definition: %w", err)
	}
	if wf.Name() != w.Name || wf.Version() != w.Version {
		return fmt.Errorf("workflow: the definition is that of %s version %s", wf.Name(), wf.Version())
	}
	if _, known := im.new[w.Name]; !known {
		_, _, err := im.Store.Workflow(ctx, w.Name, "")
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		im.new[w.Name] = err != nil
	}
	before, _, err := im.Store.Workflow(ctx, w.Name, "")
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	_, created, err := im.Store.PutWorkflow(ctx, store.WorkflowInfo{
		Name: w.Name, Version: w.Version, Kind: string(wf.Kind()), Registered: w.Registered,
	}, wf.JSON())
	if err != nil {
		return err
	}
	im.workflows[[2]string{w.Name, w.Version}] = wf
	switch {
	case !created:
		im.report.Left++
		return nil
	case !im.new[w.Name]: // the store goes on with what it had
		err = im.Store.ActivateWorkflow(ctx, w.Name, before.Version)
	case !w.Active && before.Version != "" && before.Active && im.new[w.Name]:
		err = im.Store.ActivateWorkflow(ctx, w.Name, before.Version)
	}
	im.report.Workflows++
	return err
}

// version returns a definition that the file or the store has.
func (im *importer) version(ctx context.Context, name, version string) (*definitions.Workflow, error) {
	key := [2]string{name, version}
	if wf := im.workflows[key]; wf != nil {
		return wf, nil
	}
	_, text, err := im.Store.Workflow(ctx, name, version)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("workflow: version %s of %s is neither in the file, above this line, nor in the store", version, name)
	}
	if err != nil {
		return nil, err
	}
	wf, err := definitions.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("workflow: version %s of %s: %w", version, name, err)
	}
	im.workflows[key] = wf
	return wf, nil
}

// workers leaves a note of the workers that may hold tasks of runs in the file,
// as an orchestrator does: whoever owns the shards next inherits it.
func (im *importer) workers(ctx context.Context, workers map[string]string) error {
	text, err := json.Marshal(workers)
	if err != nil {
		return err
	}
	return im.Store.SetNote(ctx, noteOfHeld+im.owner, text)
}

// own takes a shard.
func (im *importer) own(ctx context.Context, shard uint32) (*place, error) {
	if p := im.shards[shard]; p != nil {
		return p, nil
	}
	if im.Own != nil {
		if err := im.Own(ctx, shard); err != nil {
			return nil, err
		}
	}
	epoch, last, err := im.Store.Acquire(ctx, shard, im.owner)
	if err != nil {
		return nil, err
	}
	p := &place{epoch: epoch, last: last}
	im.shards[shard] = p
	return p, nil
}

func (im *importer) conflict(line int, id, why string) {
	im.report.Conflicts++
	if im.Conflict != nil {
		im.Conflict(Conflict{line, id, why})
	}
}
