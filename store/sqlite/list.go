package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/ringmaster-dev/ringmaster/store"
)

const (
	defaultLimit = 50
	maxLimit     = 1000
	// fewIDs is the number of runs with an id prefix up to which they are
	// sorted, instead of picked from all runs in list order.
	fewIDs = 2000
)

// position is a place in a list, which is ordered by descending positions.
type position struct {
	Created int64
	Ref     int64
}

func (a position) compare(b position) int {
	return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.Ref, b.Ref))
}

const cursorVersion = 1

func (p position) cursor() string {
	b := []byte{cursorVersion}
	b = binary.BigEndian.AppendUint64(b, uint64(p.Created))
	b = binary.BigEndian.AppendUint64(b, uint64(p.Ref))
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseCursor(s string) (position, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != 17 || b[0] != cursorVersion {
		return position{}, store.ErrBadCursor
	}
	return position{int64(binary.BigEndian.Uint64(b[1:])), int64(binary.BigEndian.Uint64(b[9:]))}, nil
}

// stream is a query for positions of runs. All streams of a list are merged.
type stream struct {
	from  string
	where []string
	args  []any
}

func (s *stream) and(condition string, args ...any) {
	s.where = append(s.where, condition)
	s.args = append(s.args, args...)
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context, f store.Filter) (store.Page, error) {
	defer s.reading()()
	page, err := s.list(ctx, f)
	if err != nil {
		return store.Page{}, fmt.Errorf("sqlite: listing runs: %w", err)
	}
	return page, nil
}

func (s *Store) list(ctx context.Context, f store.Filter) (page store.Page, err error) {
	limit := f.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	limit = min(limit, maxLimit)
	below, err := upperBound(f)
	if err != nil {
		return page, err
	}
	tx, err := s.read.BeginTxx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return page, err
	}
	defer func() { err = errors.Join(err, tx.Rollback()) }()

	streams, err := s.streams(ctx, tx, f)
	if err != nil {
		return page, err
	}
	found, err := merge(ctx, tx, streams, below, ceilMilli(f.Since, math.MinInt64), limit+1)
	if err != nil {
		return page, err
	}
	if len(found) > limit {
		found = found[:limit]
		page.Next = found[limit-1].cursor()
	}
	page.Runs, err = s.at(ctx, tx, found)
	return page, err
}

// upperBound is the position that a page's runs are below.
func upperBound(f store.Filter) (position, error) {
	below := position{ceilMilli(f.Until, math.MaxInt64), math.MinInt64}
	if f.Cursor != "" {
		p, err := parseCursor(f.Cursor)
		if err != nil {
			return position{}, err
		}
		if p.compare(below) < 0 {
			below = p
		}
	}
	return below, nil
}

// ceilMilli is the first millisecond at or after t, since a time in whole
// milliseconds is before t exactly if it is before that.
func ceilMilli(t time.Time, zero int64) int64 {
	if t.IsZero() {
		return zero
	}
	ms := t.UnixMilli()
	if time.UnixMilli(ms).Before(t) {
		ms++
	}
	return ms
}

// streams chooses where the runs of a list come from: from the narrowest index
// that a field of the filter has, the other fields being conditions. Without
// such a field they come from the index by workflow and status, as one stream
// for each pair that has runs and that the filter allows.
func (s *Store) streams(ctx context.Context, tx *sqlx.Tx, f store.Filter) ([]stream, error) {
	few, err := fewWithPrefix(ctx, tx, f.IDPrefix)
	if err != nil {
		return nil, err
	}
	one := func(from string) stream { return stream{from: from} }
	var out []stream
	rest := f // what the indexes do not take care of
	switch {
	case few:
		out = []stream{one("runs r INDEXED BY runs_id")}
	case f.Key != "":
		rest.Key = ""
		byKey, byID := one("runs r INDEXED BY runs_key"), one("runs r INDEXED BY runs_id")
		byKey.and("r.key = ?", f.Key)
		byID.and("r.id = ? AND r.key IS NULL", f.Key)
		out = []stream{byKey, byID}
	case f.TagName != "":
		rest.TagName, rest.TagValue = "", ""
		t := one("tags t CROSS JOIN runs r ON r.ref = t.ref")
		t.and("t.name = ?", f.TagName)
		if f.TagValue != "" {
			t.and("t.value = ?", f.TagValue)
		}
		out = []stream{t}
	case f.Parent != "":
		rest.Parent = ""
		t := one("runs r INDEXED BY runs_parent")
		t.and("r.parent = ?", f.Parent)
		out = []stream{t}
	case f.FailedStep != "":
		rest.FailedStep = ""
		t := one("runs r INDEXED BY runs_failed")
		t.and("r.failed_step = ?", f.FailedStep)
		out = []stream{t}
	default:
		counts, err := s.counts(ctx, tx)
		if err != nil {
			return nil, err
		}
		rest.Workflow, rest.Statuses = "", nil
		for _, c := range counts {
			if !s.allows(f, c) {
				continue
			}
			t := one("runs r INDEXED BY runs_status")
			t.and("r.workflow = ? AND r.status = ?", c.Workflow, c.Status)
			out = append(out, t)
		}
	}
	for i := range out {
		s.restrict(&out[i], rest)
	}
	return out, nil
}

// allows tells whether a filter's workflow and statuses admit runs of c.
func (s *Store) allows(f store.Filter, c countRow) bool {
	return (f.Workflow == "" || f.Workflow == s.names.version(c.Workflow).name) &&
		(len(f.Statuses) == 0 || slices.Contains(f.Statuses, c.Status))
}

// restrict adds a filter's fields as conditions.
func (s *Store) restrict(t *stream, f store.Filter) {
	if f.Workflow != "" {
		t.and("r.workflow IN (SELECT workflow FROM workflows WHERE name = ?)", f.Workflow)
	}
	if n := len(f.Statuses); n > 0 {
		args := make([]any, n)
		for i, st := range f.Statuses {
			args[i] = st
		}
		t.and("r.status IN ("+placeholders(n)+")", args...)
	}
	if f.Key != "" {
		t.and("coalesce(r.key, r.id) = ?", f.Key)
	}
	if f.IDPrefix != "" {
		t.and("r.id >= ?", f.IDPrefix)
		if end, ok := prefixEnd(f.IDPrefix); ok {
			t.and("r.id < ?", end)
		}
	}
	if f.FailedStep != "" {
		t.and("r.failed_step = ?", f.FailedStep)
	}
	if f.Parent != "" {
		t.and("r.parent = ?", f.Parent)
	}
	if f.TagName != "" {
		condition, args := "t.name = ?", []any{f.TagName}
		if f.TagValue != "" {
			condition, args = condition+" AND t.value = ?", append(args, f.TagValue)
		}
		t.and("EXISTS (SELECT 1 FROM tags t WHERE t.ref = r.ref AND t.created = r.created AND "+condition+")", args...)
	}
}

// prefixEnd is the first string after all that begin with prefix.
func prefixEnd(prefix string) (string, bool) {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return string(b[:i+1]), true
		}
	}
	return "", false
}

// fewWithPrefix tells whether few runs have an id with this prefix.
func fewWithPrefix(ctx context.Context, tx *sqlx.Tx, prefix string) (bool, error) {
	if prefix == "" {
		return false, nil
	}
	end, ok := prefixEnd(prefix)
	if !ok {
		return false, nil
	}
	var n int
	err := tx.GetContext(ctx, &n, `SELECT count(*) FROM (SELECT 1 FROM runs INDEXED BY runs_id
		WHERE id >= ? AND id < ? LIMIT ?)`, prefix, end, fewIDs+1)
	return n <= fewIDs, err
}

// merge returns the first positions of all streams together.
func merge(ctx context.Context, tx *sqlx.Tx, streams []stream, below position, since int64, limit int) ([]position, error) {
	var found []position
	for i := range streams {
		query, args := streams[i].query(below, since, limit)
		var more []position
		if err := sqlx.SelectContext(ctx, tx, &more, query, args...); err != nil {
			return nil, err
		}
		found = append(found, more...)
		slices.SortFunc(found, func(a, b position) int { return b.compare(a) })
		if len(found) >= limit {
			found = found[:limit]
			// No stream need look further back than the last of these.
			since = max(since, found[limit-1].Created)
		}
	}
	return found, nil
}

// query is a stream's query for its first positions below one and not before
// since.
func (s stream) query(below position, since int64, limit int) (string, []any) {
	order := "r"
	if strings.HasPrefix(s.from, "tags ") {
		order = "t" // whose key is in list order
	}
	where := strings.Join(append(slices.Clip(s.where), "@.created >= ?", "(@.created, @.ref) < (?, ?)"), " AND ")
	query := "SELECT @.created, @.ref FROM " + s.from + " WHERE " + where +
		" ORDER BY @.created DESC, @.ref DESC LIMIT ?"
	return strings.ReplaceAll(query, "@", order), append(slices.Clip(s.args), since, below.Created, below.Ref, limit)
}

// at returns the runs at the given positions, in their order.
func (s *Store) at(ctx context.Context, tx *sqlx.Tx, positions []position) ([]store.Run, error) {
	if len(positions) == 0 {
		return nil, nil
	}
	refs := make([]int64, len(positions))
	for i, p := range positions {
		refs[i] = p.Ref
	}
	list, err := json.Marshal(refs)
	if err != nil {
		return nil, err
	}
	return s.queryRuns(ctx, tx, "SELECT "+runColumns+" FROM json_each(?) n CROSS JOIN runs r ON r.ref = n.value ORDER BY n.key", string(list))
}
