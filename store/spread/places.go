package spread

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	ownNotes   = "spread/"
	notePrefix = ownNotes + "shard/"
	numberNote = ownNotes + "number"
	strayNote  = ownNotes + "strays"
)

// place is where a shard is, as the home has it.
type place struct {
	At   int `json:"at"`             // number of a store, from 1
	To   int `json:"to,omitempty"`   // while it is being copied
	From int `json:"from,omitempty"` // while what was copied is being removed there
}

// places are those of all shards.
type places struct {
	s *Store

	mu      sync.Mutex
	turn    int // grows when what is being read may be too old
	known   time.Time
	indexes []int // by shard
}

func noteOf(shard uint32) string { return notePrefix + strconv.FormatUint(uint64(shard), 10) }

// read returns what the home says of a shard.
func (p *places) read(ctx context.Context, shard uint32) (place, error) {
	data, err := p.s.home.Note(ctx, noteOf(shard))
	if err != nil {
		return place{}, fmt.Errorf("reading where shard %d is: %w", shard, err)
	}
	return p.decode(data)
}

func (p *places) decode(data []byte) (place, error) {
	at := place{At: 1}
	if data == nil {
		return at, nil
	}
	if err := json.Unmarshal(data, &at); err != nil {
		return place{}, fmt.Errorf("the place of a shard: %w", err)
	}
	return at, nil
}

func (p *places) write(ctx context.Context, shard uint32, to place) error {
	data, err := json.Marshal(to)
	if err == nil {
		err = p.s.home.SetNote(ctx, noteOf(shard), data)
	}
	if err != nil {
		return fmt.Errorf("noting where shard %d is: %w", shard, err)
	}
	p.forget()
	return nil
}

// forget has the next reader ask the home.
func (p *places) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = time.Time{}
	p.turn++
}

// settle returns where a shard is, and first gives one that has never been
// acquired its place. Whoever does so at the same time writes the same.
func (p *places) settle(ctx context.Context, shard uint32) (place, error) {
	data, err := p.s.home.Note(ctx, noteOf(shard))
	if err != nil || data != nil {
		at, decodeErr := p.decode(data)
		if err == nil {
			err = decodeErr
		}
		return at, err
	}
	home := place{At: 1}
	_, epoch, err := p.s.home.Owner(ctx, shard)
	if err != nil || epoch != 0 {
		return home, err
	}
	turn := place{At: int(shard)%len(p.s.stores) + 1}
	if turn == home {
		return home, nil
	}
	return turn, p.write(ctx, shard, turn)
}

// at returns the index of each shard's store.
func (p *places) at(ctx context.Context) ([]int, error) {
	p.mu.Lock()
	at, fresh := p.indexes, time.Since(p.known) < placesAge
	p.mu.Unlock()
	if fresh {
		return at, nil
	}
	return p.load(ctx)
}

func (p *places) load(ctx context.Context) ([]int, error) {
	began := time.Now()
	p.mu.Lock()
	turn := p.turn
	p.mu.Unlock()
	notes, err := p.s.home.Notes(ctx, notePrefix)
	if err != nil {
		return nil, fmt.Errorf("spread: reading where shards are: %w", err)
	}
	at := make([]int, p.s.shards)
	for name, data := range notes {
		shard, err := strconv.ParseUint(strings.TrimPrefix(name, notePrefix), 10, 32)
		if err != nil || shard >= uint64(p.s.shards) {
			continue
		}
		where, err := p.decode(data)
		if err == nil {
			at[shard], err = p.s.index(where.At)
		}
		if err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if turn == p.turn {
		p.indexes, p.known = at, began
	}
	return at, nil
}
