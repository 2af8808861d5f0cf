package spread

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/ringmaster-dev/ringmaster/store"
)

const (
	defaultLimit = 50
	maxLimit     = 1000
)

// position is a place in a list, which is ordered by descending positions. As a cursor
// it stands for the pages of all stores.
type position struct{ created, ref int64 }

func positionOf(r *store.Run) position { return position{r.Created.UnixMilli(), r.Ref} }

func (a position) compare(b position) int {
	return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.ref, b.ref))
}

const cursorVersion = 1

func (a position) cursor() string {
	b := []byte{cursorVersion}
	b = binary.BigEndian.AppendUint64(b, uint64(a.created))
	b = binary.BigEndian.AppendUint64(b, uint64(a.ref))
	return base64.RawURLEncoding.EncodeToString(b)
}

func parseCursor(s string) (position, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != 17 || b[0] != cursorVersion {
		return position{}, store.ErrBadCursor
	}
	return position{int64(binary.BigEndian.Uint64(b[1:])), int64(binary.BigEndian.Uint64(b[9:]))}, nil
}

// List implements [store.Store].
func (s *Store) List(ctx context.Context, f store.Filter) (store.Page, error) {
	limit := f.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	limit = min(limit, maxLimit)
	var below *position
	if f.Cursor != "" {
		p, err := parseCursor(f.Cursor)
		if err != nil {
			return store.Page{}, fmt.Errorf("spread: listing runs: %w", err)
		}
		below = &p
		// Stores know times only; of the cursor's millisecond the rest is left out here.
		if until := time.UnixMilli(p.created + 1); f.Until.IsZero() || until.Before(f.Until) {
			f.Until = until
		}
	}
	at, err := s.places.at(ctx)
	if err != nil {
		return store.Page{}, err
	}
	pages := make([][]store.Run, len(s.stores))
	err = s.each(func(i int, st store.Store) (err error) {
		pages[i], err = listed(ctx, st, f, limit+1, func(r *store.Run) bool {
			return at[r.Shard] == i && (below == nil || positionOf(r).compare(*below) < 0)
		})
		return err
	})
	if err != nil {
		return store.Page{}, fmt.Errorf("spread: listing runs: %w", err)
	}
	runs := slices.Concat(pages...)
	slices.SortFunc(runs, func(a, b store.Run) int { return positionOf(&b).compare(positionOf(&a)) })
	if len(runs) <= limit {
		return store.Page{Runs: runs}, nil
	}
	return store.Page{Runs: runs[:limit], Next: positionOf(&runs[limit-1]).cursor()}, nil
}

// listed returns the first n runs of a store that count.
func listed(ctx context.Context, st store.Store, f store.Filter, n int, counts func(*store.Run) bool) ([]store.Run, error) {
	var out []store.Run
	f.Cursor, f.Limit = "", min(n, maxLimit)
	for {
		page, err := st.List(ctx, f)
		if err != nil {
			return nil, err
		}
		for i := range page.Runs {
			if counts(&page.Runs[i]) {
				out = append(out, page.Runs[i])
			}
		}
		if len(out) >= n {
			return out[:n], nil
		}
		if f.Cursor = page.Next; f.Cursor == "" {
			return out, nil
		}
	}
}

// Buried implements [store.Store].
func (s *Store) Buried(ctx context.Context, after string, limit int) ([]store.Tombstone, error) {
	at, err := s.places.at(ctx)
	if err != nil {
		return nil, err
	}
	pages := make([][]store.Tombstone, len(s.stores))
	err = s.each(func(i int, st store.Store) error {
		for from := after; len(pages[i]) < limit; {
			page, err := st.Buried(ctx, from, limit)
			if err != nil || len(page) == 0 {
				return err
			}
			from = page[len(page)-1].ID
			for _, t := range page {
				if at[t.Shard] == i {
					pages[i] = append(pages[i], t)
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("spread: reading tombstones: %w", err)
	}
	out := slices.Concat(pages...)
	slices.SortFunc(out, func(a, b store.Tombstone) int { return cmp.Compare(a.ID, b.ID) })
	return out[:min(max(limit, 0), len(out))], nil
}
