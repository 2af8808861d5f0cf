package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// WriteFile has a file made by a function that writes it: it is there, durably,
// once that has succeeded, and not before. What was there under its name is
// replaced then.
func WriteFile(path string, write func(io.Writer) error) (err error) {
	part := path + ".part"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if f != nil {
			err = errors.Join(err, f.Close(), os.Remove(part))
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	f = nil
	if err := os.Rename(part, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Each reads a file and calls a function for each of its lines.
func Each(ctx context.Context, in io.Reader, maxLine int, f func(l *Line, line int) error) error {
	r := NewReader(in, maxLine)
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("reading: %w", err)
		}
		l, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(l, r.Line()); err != nil {
			return err
		}
	}
}
