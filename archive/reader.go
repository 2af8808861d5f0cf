package archive

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// DefaultMaxLineBytes bounds a line, and with it a run with its history.
const DefaultMaxLineBytes = 256 << 20

const (
	maxIDBytes   = 200
	maxKeyBytes  = 256
	maxNameBytes = 128
	maxTextBytes = 4 << 10
	maxTags      = 256
	maxTagBytes  = 256
)

// LineError tells which line breaks which rule.
type LineError struct {
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns the rule.
func (e *LineError) Unwrap() error { return e.Err }

// ErrCutOff: the file ends before its end, or in the middle of a line.
var ErrCutOff = errors.New("the file is cut off")

// Reader reads a file line by line, each of which it has checked for itself. It
// is for one goroutine.
type Reader struct {
	in     *bufio.Reader
	max    int
	line   int
	header *Header
	seen   Counts
	ended  bool
}

// NewReader begins to read a file. Lines longer than maxLine bytes are refused;
// zero is DefaultMaxLineBytes.
func NewReader(in io.Reader, maxLine int) *Reader {
	if maxLine <= 0 {
		maxLine = DefaultMaxLineBytes
	}
	return &Reader{in: bufio.NewReaderSize(in, 1<<16), max: maxLine}
}

// Line is the number of the line that was read last.
func (r *Reader) Line() int { return r.line }

// Header is the file's, once Next has been called.
func (r *Reader) Header() *Header { return r.header }

// Next returns the next line that is not the header or the end. Its errors are
// *LineError: with ErrCutOff where the file ends too early, of what broke a rule
// otherwise. At the end of the file it returns io.EOF.
func (r *Reader) Next() (*Line, error) {
	for {
		text, err := r.read()
		if errors.Is(err, io.EOF) {
			return nil, r.atEnd()
		}
		if err != nil {
			return nil, &LineError{r.line, err}
		}
		l, err := parse(text)
		if err == nil {
			err = r.place(l)
		}
		if err != nil {
			return nil, &LineError{r.line, err}
		}
		if l.Header == nil && l.End == nil {
			r.seen.add(l)
			return l, nil
		}
	}
}

// atEnd tells whether the file may end here.
func (r *Reader) atEnd() error {
	switch {
	case r.header == nil:
		return &LineError{1, errors.New("expected a header: this is not a file that Ringmaster has exported")}
	case r.header.Kind == KindExport && !r.ended:
		return &LineError{r.line, fmt.Errorf("%w: it has no end line", ErrCutOff)}
	}
	return io.EOF
}

// read returns the next line that is not empty, without its end.
func (r *Reader) read() ([]byte, error) {
	for {
		var text []byte
		for {
			part, err := r.in.ReadSlice('\n')
			if len(text)+len(part) > r.max {
				r.line++
				return nil, fmt.Errorf("is longer than %d bytes", r.max)
			}
			text = append(text, part...)
			if err == nil {
				break
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if errors.Is(err, io.EOF) && len(bytes.TrimSpace(text)) > 0 {
				r.line++
				switch {
				case r.header != nil && r.header.Kind == KindArchive:
					return nil, io.EOF // what it was to hold was not removed
				case json.Valid(text):
					return text, nil // whoever copied it left the last newline out
				}
				return nil, fmt.Errorf("%w in the middle of a line", ErrCutOff)
			}
			return nil, err
		}
		r.line++
		if text = bytes.TrimSpace(text); len(text) > 0 {
			return text, nil
		}
	}
}

// place checks that a line may stand where it does.
func (r *Reader) place(l *Line) error {
	switch {
	case r.header == nil && l.Header == nil:
		return errors.New("expected a header: this is not a file that Ringmaster has exported")
	case r.header == nil:
		r.header = l.Header
	case l.Header != nil && r.header.Kind == KindArchive && l.Header.Kind == KindArchive: // files may be joined
	case l.Header != nil:
		return errors.New("a second header")
	case r.ended:
		return errors.New("a line after the end")
	case l.End != nil:
		r.ended = true
		if *l.End != r.seen {
			return fmt.Errorf("%w, or lines are missing: the end names %d workflows, %d runs and %d tombstones, and there were %d, %d and %d",
				ErrCutOff, l.End.Workflows, l.End.Runs, l.End.Tombstones, r.seen.Workflows, r.seen.Runs, r.seen.Tombstones)
		}
	}
	return nil
}

// parse reads one line and checks it as far as it stands for itself.
func parse(text []byte) (*Line, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var l Line
	if err := dec.Decode(&l); err != nil {
		return nil, fmt.Errorf("is not a line of format %d: %w", Format, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("has more than one JSON object")
	}
	return &l, l.check()
}

func (l *Line) check() error {
	n := 0
	for _, set := range []bool{l.Header != nil, l.Workflow != nil, l.Run != nil, l.Tombstone != nil, l.Workers != nil, l.End != nil} {
		if set {
			n++
		}
	}
	switch {
	case n != 1:
		return errors.New("expected exactly one of ringmaster, workflow, run, tombstone, workers and end")
	case l.Header != nil && l.Header.Format != Format:
		return fmt.Errorf("ringmaster.format: %d is not known to this version, which reads %d", l.Header.Format, Format)
	case l.Header != nil && l.Header.Kind != KindExport && l.Header.Kind != KindArchive:
		return fmt.Errorf("ringmaster.kind: %q is not one", l.Header.Kind)
	case l.Workflow != nil:
		w := l.Workflow
		return prefixed("workflow", errors.Join(checkName("name", w.Name, maxNameBytes), checkName("version", w.Version, maxNameBytes),
			needTime("registered", w.Registered)))
	case l.Run != nil:
		_, err := l.Run.row()
		return prefixed("run", errors.Join(err, checkHistory(l.Run.History)))
	case l.Tombstone != nil:
		_, err := l.Tombstone.row()
		return prefixed("tombstone", err)
	}
	return nil
}

func prefixed(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s.%w", what, err)
}

func checkHistory(h []Record) error {
	if len(h) == 0 {
		return errors.New("history: is empty")
	}
	if h[0].Seq != 1 {
		return fmt.Errorf("history: begins with record %d, not 1", h[0].Seq)
	}
	for i := 1; i < len(h); i++ {
		if h[i].Seq <= h[i-1].Seq {
			return fmt.Errorf("history: record %d follows record %d: numbers must grow", h[i].Seq, h[i-1].Seq)
		}
	}
	return nil
}

func checkName(what, s string, limit int) error {
	if s == "" || len(s) > limit {
		return fmt.Errorf("%s: must have 1 to %d bytes", what, limit)
	}
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return fmt.Errorf("%s: must be printable", what)
		}
	}
	return nil
}

// checkText is for texts that may be empty, and hold what they like.
func checkText(what, s string, limit int) error {
	if len(s) > limit || strings.ContainsRune(s, 0) {
		return fmt.Errorf("%s: at most %d bytes, none of them zero", what, limit)
	}
	return nil
}

func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return fmt.Errorf("tags: at most %d", maxTags)
	}
	for name, value := range tags {
		if checkName("", name, maxTagBytes) != nil || value != "" && checkName("", value, maxTagBytes) != nil {
			return fmt.Errorf("tags: %.64q: names and values must be printable, at most %d bytes", name, maxTagBytes)
		}
	}
	return nil
}

// needTime checks that a time is there, and that a store can hold it.
func needTime(what string, t time.Time) error {
	if t.IsZero() {
		return fmt.Errorf("%s: is missing", what)
	}
	return inTime(what, t)
}

// inTime checks that a store can hold a time, which may be zero.
func inTime(what string, t time.Time) error {
	if t.IsZero() {
		return nil
	}
	if t.Year() < 1970 || t.Year() > 9999 || !t.Equal(t.Truncate(time.Millisecond)) {
		return fmt.Errorf("%s: must be in full milliseconds, from 1970 to 9999", what)
	}
	return nil
}
