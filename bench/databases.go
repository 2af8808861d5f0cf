package main

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
)

// measureDatabases has TCCs and two-phase commits between PostgreSQL and MariaDB,
// and before each what the two can do with no engine between them.
func measureDatabases(ctx context.Context, b *bench) error {
	b.say("  starting a private PostgreSQL and a private MariaDB")
	var err error
	if b.banks, err = startBanks(ctx); err != nil {
		return err
	}
	s, err := newSystem(ctx, b, "databases")
	if err != nil {
		return err
	}
	defer s.kill()
	if err := s.startBankWorkers(ctx, b.banks); err != nil {
		return err
	}
	for _, m := range []struct {
		name    string
		w       workload
		ceiling func(ctx context.Context, dbs []*sqlx.DB, id string) error
	}{
		{"tcc.db", bankBooking, reserveAndConfirm},
		{"twophase.db", bankTransfer, prepareAndCommit},
	} {
		ceiling, err := b.ceilingOfDatabases(ctx, m.name, m.ceiling)
		if err != nil {
			return fmt.Errorf("%s, the databases alone: %w", m.name, err)
		}
		o, err := saturate(ctx, s, m.w, b.d.warmUp, b.d.databases, nothing)
		if err != nil {
			return err
		}
		r := b.report
		r.set(m.name+".ceiling_per_s", ceiling, "1/s")
		r.set(m.name+".per_s", o.perS, "1/s")
		r.setRatio(m.name)
		r.set(m.name+".saturated.p50_ms", o.samples.quantile(0.5), "ms")
		r.set(m.name+".saturated.p99_ms", o.samples.quantile(0.99), "ms")
		b.say("  %s: the databases alone %.0f/s", m.name, ceiling)
		b.sayOutcome(o)
	}
	return s.close(ctx)
}

// ceilingOfDatabases measures how many times a second both databases can do what
// a run asks of them, many side by side, without messages and without a decision.
func (b *bench) ceilingOfDatabases(
	ctx context.Context, name string, once func(ctx context.Context, dbs []*sqlx.DB, id string) error,
) (float64, error) {
	var dbs []*sqlx.DB
	for _, service := range participants {
		db, err := openBank(service, b.banks.address(service, "bench"))
		if err != nil {
			return 0, err
		}
		defer func() { _ = db.Close() }()
		dbs = append(dbs, db)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var done atomic.Int64
	var lanes sync.WaitGroup
	begin := time.Now()
	for lane := range bankConcurrency {
		lanes.Go(func() {
			for i := 0; time.Since(begin) < b.d.databases && ctx.Err() == nil; i++ {
				if err := once(ctx, dbs, fmt.Sprintf("%s-%d-%d", name, lane, i)); err != nil {
					cancel(err)
					return
				}
				done.Add(1)
			}
		})
	}
	lanes.Wait()
	return perSecond(done.Load(), time.Since(begin)), context.Cause(ctx)
}

// both does something at both databases, side by side.
func both(dbs []*sqlx.DB, do func(db *sqlx.DB) error) error {
	errs := make([]error, len(dbs))
	var all sync.WaitGroup
	for i, db := range dbs {
		all.Go(func() { errs[i] = do(db) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// reserveAndConfirm is a TCC as two transactions at each database.
func reserveAndConfirm(ctx context.Context, dbs []*sqlx.DB, id string) error {
	for _, query := range []string{bankInsert, bankConfirm} {
		err := both(dbs, func(db *sqlx.DB) error {
			tx, err := db.BeginTxx(ctx, nil)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, tx.Rebind(query), id); err != nil {
				return errors.Join(err, tx.Rollback())
			}
			return tx.Commit()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// prepareAndCommit is a two-phase commit as a prepared transaction at each
// database. Each is committed on its own connection, as MariaDB would have it.
func prepareAndCommit(ctx context.Context, dbs []*sqlx.DB, id string) error {
	conns := make(map[*sqlx.DB]*sqlx.Conn, len(dbs))
	for _, db := range dbs {
		conn, err := db.Connx(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		conns[db] = conn
	}
	phase := func(db *sqlx.DB, statements ...string) error {
		for _, query := range statements {
			var args []any
			if query == bankInsert {
				args = []any{id}
			}
			if _, err := conns[db].ExecContext(ctx, db.Rebind(query), args...); err != nil {
				// Whatever is left of the branch goes with the connection.
				return errors.Join(err, conns[db].Raw(func(any) error { return driver.ErrBadConn }))
			}
		}
		return nil
	}
	err := both(dbs, func(db *sqlx.DB) error {
		if db.DriverName() == "mysql" {
			return phase(db, `XA START '`+id+`'`, bankInsert, `XA END '`+id+`'`, `XA PREPARE '`+id+`'`)
		}
		return phase(db, `BEGIN`, bankInsert, `PREPARE TRANSACTION '`+id+`'`)
	})
	if err != nil {
		return err
	}
	return both(dbs, func(db *sqlx.DB) error {
		if db.DriverName() == "mysql" {
			return phase(db, `XA COMMIT '`+id+`'`)
		}
		return phase(db, `COMMIT PREPARED '`+id+`'`)
	})
}
