package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

// DefaultFileBytes is the size past which a [Dir] begins a new file.
const DefaultFileBytes = 64 << 20

// DirConfig says where an archive is. Path and Store are required.
type DirConfig struct {
	Path  string // of the folder; made if absent
	Store store.Store
	// Node is part of the files' names, so that several orchestrators can share a
	// folder; default is the process's number alone.
	Node string
	// FileBytes is the size past which a new file begins, as one does every day
	// (UTC) and at every start; default DefaultFileBytes.
	FileBytes int64
	Release   string // written into headers
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Dir keeps runs in files of a folder, in lines that [Import] reads. A file is
// whole for itself: it has the definitions that its runs need. It is safe for
// concurrent use.
type Dir struct {
	cfg DirConfig

	mu      sync.Mutex
	file    *os.File
	size    int64 // of what is durable
	day     string
	number  int
	written map[[2]string]bool // definitions in the file
}

// OpenDir makes sure that the folder is there and can be written to.
func OpenDir(cfg DirConfig) (*Dir, error) {
	if cfg.Path == "" || cfg.Store == nil {
		return nil, errors.New("archive: Path and Store are required")
	}
	if cfg.FileBytes <= 0 {
		cfg.FileBytes = DefaultFileBytes
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := os.MkdirAll(cfg.Path, 0o750); err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	probe, err := os.CreateTemp(cfg.Path, ".probe-*")
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	return &Dir{cfg: cfg}, errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// Add appends runs and returns once they are durable. After an error none of them
// counts as kept, and may be added again; the next call begins a new file.
func (d *Dir) Add(ctx context.Context, runs []store.Unfinished) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.add(ctx, runs)
	if err != nil && d.file != nil {
		// What is behind the last line that is durable is taken back, if the disk
		// allows; a reader passes over half a line at the end of a file.
		path := d.file.Name()
		err = errors.Join(err, d.file.Truncate(d.size), d.end())
		if d.size == 0 {
			err = errors.Join(err, os.Remove(path))
		}
	}
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	return nil
}

func (d *Dir) add(ctx context.Context, runs []store.Unfinished) error {
	now := d.cfg.Now().UTC()
	if d.file != nil && (d.size >= d.cfg.FileBytes || d.day != now.Format(time.DateOnly)) {
		if err := d.end(); err != nil {
			return err
		}
	}
	if d.file == nil {
		if err := d.begin(now); err != nil {
			return err
		}
	}
	var b bytes.Buffer
	if d.size == 0 {
		header := &Header{Format: Format, Kind: KindArchive, Written: now.Truncate(time.Millisecond), Release: d.cfg.Release}
		if err := writeLine(&b, &Line{Header: header}); err != nil {
			return err
		}
	}
	for i := range runs {
		if err := d.definition(ctx, &b, &runs[i].Run); err != nil {
			return err
		}
		if err := writeLine(&b, LineOf(&runs[i])); err != nil {
			return err
		}
	}
	n, err := d.file.Write(b.Bytes())
	if err == nil {
		err = d.file.Sync()
	}
	if err != nil {
		return err
	}
	d.size += int64(n)
	return nil
}

// begin begins a file. Its name sorts by time and is nobody else's.
func (d *Dir) begin(now time.Time) error {
	d.day, d.size, d.written = now.Format(time.DateOnly), 0, map[[2]string]bool{}
	for {
		d.number++
		name := fmt.Sprintf("runs-%s-%s-%d-%d.jsonl", now.Format("20060102T150405Z"), fileName(d.cfg.Node), os.Getpid(), d.number)
		f, err := os.OpenFile(filepath.Join(d.cfg.Path, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		d.file = f
		return syncDir(d.cfg.Path)
	}
}

// definition writes the definition of a run, once in each file.
func (d *Dir) definition(ctx context.Context, b *bytes.Buffer, r *store.Run) error {
	key := [2]string{r.Workflow, r.Version}
	if d.written[key] {
		return nil
	}
	info, text, err := d.cfg.Store.Workflow(ctx, r.Workflow, r.Version)
	if err != nil {
		return err
	}
	d.written[key] = true
	return writeLine(b, workflowLine(&info, text))
}

// end closes the file.
func (d *Dir) end() error {
	f := d.file
	d.file = nil
	if f == nil {
		return nil
	}
	return f.Close()
}

// Close closes the file that is being written.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.end()
}

// fileName keeps what can be part of a file's name anywhere.
func fileName(s string) string {
	b := []byte(s)
	for i, c := range b {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '.' {
			b[i] = '_'
		}
	}
	return string(b)
}

// syncDir makes the names of a folder's files durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
