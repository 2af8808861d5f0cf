package xa

import (
	"context"
	"database/sql/driver"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
)

// On MySQL a prepared branch is its session's own until the session is over, and
// to end it by its name from another session just then is dangerous: MariaDB
// gives the name free a moment before the storage engine lets go of the branch.
// A commit or rollback in between says that it succeeded, ends nothing, and
// nobody sees the branch any more, or can have its rows, until the server is
// started again.
//
// So the session of a branch that this process has prepared is kept for a while,
// and the decision, which mostly comes soon and to the same worker, is carried
// out on it. Only when it does not come is the connection closed; and whoever
// ends the branch by its name then waits until the session is gone for some time.

const (
	// keepFor is how long a session waits for the decision. Other workers cannot
	// end the branch meanwhile.
	keepFor = 250 * time.Millisecond
	// keepMost is how many sessions wait at a time.
	keepMost = 128
)

// kept are the sessions that wait for the decision of their branches.
type kept struct {
	limit int

	mu    sync.Mutex
	conns map[string]*sqlx.Conn // by name of the branch
}

// put keeps a session, or closes it where there are too many.
func (k *kept) put(gid string, conn *sqlx.Conn) {
	k.mu.Lock()
	full := len(k.conns) >= k.limit
	if !full {
		k.conns[gid] = conn
	}
	k.mu.Unlock()
	if full {
		discard(conn)
		return
	}
	time.AfterFunc(keepFor, func() {
		k.mu.Lock()
		late := k.conns[gid] == conn
		if late {
			delete(k.conns, gid)
		}
		k.mu.Unlock()
		if late {
			discard(conn)
		}
	})
}

// take returns the branch's session, and keeps it no more; nil if there is none.
func (k *kept) take(gid string) *sqlx.Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	conn := k.conns[gid]
	delete(k.conns, gid)
	return conn
}

// discard closes a connection that the pool must not have back.
func discard(conn *sqlx.Conn) {
	_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // closes it
	_ = conn.Close()
}

// endKept ends the branch on the session that has prepared it, if that is kept
// here. False says that nothing is known to have been done.
func (b *branch) endKept(ctx context.Context, commit bool) bool {
	conn := b.kept.take(b.gid)
	if conn == nil {
		return false
	}
	defer discard(conn)
	command := `XA ROLLBACK`
	if commit {
		command = `XA COMMIT`
	}
	_, err := conn.ExecContext(ctx, command+` '`+b.gid+`'`)
	return err == nil
}

// letGo closes the session that has prepared the branch, if it is kept here.
func (b *branch) letGo() {
	if conn := b.kept.take(b.gid); conn != nil {
		discard(conn)
	}
}
