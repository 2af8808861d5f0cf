package audit

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
)

// Reads says what readers of the sum of all money saw while transfers went on.
type Reads struct {
	N             int   // reads that gave a sum
	Wrong         int   // of which with another sum than there is
	Least, Most   int64 // the furthest off, below and above
	NotAtAll      int   // reads that gave none: a lock or a database was not to be had
	InARow        int   // wrong ones in a row now
	LongestInARow int
}

func (r *Reads) count(deviation int64) {
	r.N++
	if deviation == 0 {
		r.InARow = 0
		return
	}
	r.Wrong++
	r.InARow++
	r.LongestInARow = max(r.LongestInARow, r.InARow)
	r.Least, r.Most = min(r.Least, deviation), max(r.Most, deviation)
}

func (r *Reads) String() string {
	if r.Wrong == 0 {
		return fmt.Sprintf("%d times the sum, always the true one; %d times none", r.N, r.NotAtAll)
	}
	return fmt.Sprintf("%d times the sum, %d times a wrong one (%.1f %%; %+d to %+d; at most %d times in a row); %d times none",
		r.N, r.Wrong, 100*float64(r.Wrong)/float64(r.N), r.Least, r.Most, r.LongestInARow, r.NotAtAll)
}

// Watch reads the sum of all money again and again, until ctx ends, in two ways:
// plainly, at all banks at once, and with locks: all accounts of one bank, then
// all of the next, held until the last is read. The sum is true when it is want.
func Watch(ctx context.Context, banks []*sqlx.DB, want int64, every time.Duration) (plain, locked Reads) {
	var both sync.WaitGroup
	loop := func(r *Reads, every time.Duration, read func(context.Context, []*sqlx.DB) (int64, error)) {
		ticks := time.NewTicker(every)
		defer ticks.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticks.C:
			}
			if sum, err := read(ctx, banks); err == nil {
				r.count(sum - want)
			} else if ctx.Err() == nil {
				r.NotAtAll++
			}
		}
	}
	both.Go(func() { loop(&plain, every, plainSum) })
	both.Go(func() { loop(&locked, lockedEvery*every, lockedSum) })
	both.Wait()
	return plain, locked
}

// lockedEvery is how many plain reads there are for one with locks, which holds
// the transfers up.
const lockedEvery = 50

// readTimeout bounds one read: it is not to wait for a database that is down.
const readTimeout = 2 * time.Second

// plainSum reads as most reports would: one statement at each bank.
func plainSum(ctx context.Context, banks []*sqlx.DB) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	sums, errs := make([]int64, len(banks)), make([]error, len(banks))
	var all sync.WaitGroup
	for i, db := range banks {
		all.Go(func() { errs[i] = db.GetContext(ctx, &sums[i], `SELECT sum(balance) FROM accounts`) })
	}
	all.Wait()
	return total(sums, errs)
}

func total(sums []int64, errs []error) (sum int64, err error) {
	for i := range sums {
		if errs[i] != nil {
			return 0, errs[i]
		}
		sum += sums[i]
	}
	return sum, nil
}

// lockedSum holds every account that it has read until it has read all. It meets
// no transfer half way that has prepared its branches with locks of its own.
func lockedSum(ctx context.Context, banks []*sqlx.DB) (sum int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	for _, db := range banks {
		tx, err := db.BeginTxx(ctx, nil)
		if err != nil {
			return 0, err
		}
		defer func() { _ = tx.Rollback() }()
		// A transfer may hold an account that we wait for, and wait for one that we
		// hold at the other bank: give up soon.
		balances, err := lockAll(ctx, tx, isMySQL(db))
		if err != nil {
			return 0, err
		}
		for _, b := range balances {
			sum += b
		}
	}
	return sum, nil
}

// lockAll reads all accounts and locks them against changes until tx ends.
func lockAll(ctx context.Context, tx *sqlx.Tx, mysql bool) (balances []int64, err error) {
	if !mysql {
		if _, err := tx.ExecContext(ctx, `SET LOCAL lock_timeout = '200ms'`); err != nil {
			return nil, err
		}
		err := tx.SelectContext(ctx, &balances, `SELECT balance FROM accounts ORDER BY id FOR SHARE`)
		return balances, err
	}
	// MariaDB counts waits in seconds, which is too long.
	for range 20 {
		err = tx.SelectContext(ctx, &balances, `SELECT balance FROM accounts ORDER BY id LOCK IN SHARE MODE NOWAIT`)
		if err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return balances, err
}
