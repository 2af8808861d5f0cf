package spread

import (
	"context"
	"errors"
	"fmt"

	"github.com/ringmaster-dev/ringmaster/store"
)

// Commit implements [store.Store]: a transaction in each store that has parts, side
// by side. Where one fails, others may have been written.
func (s *Store) Commit(parts []store.Part) ([]error, error) {
	if !s.strays.Load() && s.stray(parts) {
		if err := s.home.SetNote(context.Background(), strayNote, []byte{1}); err != nil {
			return nil, fmt.Errorf("spread: %w", err)
		}
		s.strays.Store(true)
	}
	at, err := s.commitPlaces(parts)
	if err != nil {
		return nil, err
	}
	errs := make([]error, len(parts))
	mine := make([][]int, len(s.stores)) // positions of its parts, by store
	for i := range parts {
		if at[i] < 0 {
			errs[i] = fmt.Errorf("there is no shard %d: %w", parts[i].Shard, store.ErrStaleEpoch)
			continue
		}
		mine[at[i]] = append(mine[at[i]], i)
	}
	err = s.each(func(n int, st store.Store) error {
		if len(mine[n]) == 0 {
			return nil
		}
		some := make([]store.Part, len(mine[n]))
		for j, i := range mine[n] {
			some[j] = parts[i]
		}
		partErrs, err := st.Commit(some)
		for j, e := range partErrs {
			errs[mine[n][j]] = e
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("spread: %w", err)
	}
	if errors.Join(errs...) == nil {
		return nil, nil
	}
	return errs, nil
}

// stray tells whether parts have ids that do not belong to their shards.
func (s *Store) stray(parts []store.Part) bool {
	for i := range parts {
		p := &parts[i]
		for j := range p.Create {
			if store.ShardOf(p.Create[j].ID, s.shards) != p.Shard {
				return true
			}
		}
		for j := range p.Bury {
			if store.ShardOf(p.Bury[j].ID, s.shards) != p.Shard {
				return true
			}
		}
	}
	return false
}

// commitPlaces is the index of each part's store, -1 for what is no shard: where the shard
// was acquired, else where it is said to be. Under a wrong epoch neither takes it.
func (s *Store) commitPlaces(parts []store.Part) ([]int, error) {
	out := make([]int, len(parts))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range parts {
		at, ok := s.acquired[parts[i].Shard]
		switch {
		case ok:
			out[i] = at
		case parts[i].Shard >= s.shards:
			out[i] = -1
		default:
			at, err := s.places.at(context.Background())
			if err != nil {
				return nil, err
			}
			out[i] = at[parts[i].Shard]
		}
	}
	return out, nil
}
