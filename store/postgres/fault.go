package postgres

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ringmaster-dev/ringmaster/store"
)

// errNotDurable refuses servers whose commits can be lost.
var errNotDurable = errors.New("synchronous_commit is off: commits would not survive a crash of the server")

// code is the SQLSTATE of an error; empty if it is not of the server.
func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// The SQLSTATEs with which an optimistic commit fails where a part may have to be
// left out.
const (
	divisionByZero  = "22012" // an epoch is not as it should be
	notNull         = "23502" // no such run; or the id is taken
	uniqueViolation = "23505"
	cardinality     = "21000"
)

// doubtful tells whether a commit failed because of one of its parts.
func doubtful(err error) bool {
	switch code(err) {
	case divisionByZero, notNull, uniqueViolation, cardinality:
		return true
	}
	return false
}

// permanent tells whether trying again is of no use: the server understood and
// refused. Everything else (no connection, a server that starts or stops, a full
// disk, a deadlock, a standby that is about to take over) passes.
func permanent(err error) bool {
	if errors.Is(err, errNotDurable) || errors.Is(err, errClosed) {
		return true
	}
	c := code(err)
	switch {
	case c == "":
		return false
	case strings.HasPrefix(c, "22"), strings.HasPrefix(c, "23"), strings.HasPrefix(c, "42"), strings.HasPrefix(c, "3"):
		return true
	}
	return false
}

// again calls f until it succeeds, fails for good, ctx ends or patience does.
// f must be one that may be done twice.
func again[T any](ctx context.Context, s *Store, patience time.Duration, f func(context.Context) (T, error)) (T, error) {
	return backoff.Retry(ctx, func() (T, error) {
		v, err := f(ctx)
		if err != nil && (permanent(err) || isAnswer(err) || ctx.Err() != nil || s.ctx.Err() != nil) {
			err = backoff.Permanent(err)
		}
		return v, err
	}, backoff.WithBackOff(newBackOff()), backoff.WithMaxElapsedTime(patience))
}

func newBackOff() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 20*time.Millisecond, time.Second
	return b
}

// clean is a text as PostgreSQL can hold it: UTF-8 without NUL. Ids and names
// have been checked long before; this is for what errors and keys may hold.
func clean(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// isAnswer tells whether an error is an answer of its own.
func isAnswer(err error) bool {
	return errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrBadCursor)
}

// read calls f, which reads and nothing else, again for a short while where the
// server is away.
func read[T any](ctx context.Context, s *Store, f func(context.Context) (T, error)) (T, error) {
	defer s.reading()()
	return again(ctx, s, readPatience, f)
}

// write calls f, which may be done twice, again for as long as a commit would be.
func write[T any](ctx context.Context, s *Store, f func(context.Context) (T, error)) (T, error) {
	defer s.reading()()
	s.mu.Lock()
	err := s.writable()
	s.mu.Unlock()
	if err != nil {
		var zero T
		return zero, err
	}
	return again(ctx, s, s.patience, f)
}
