package audit

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"
)

// Read reads a bank's books.
func Read(ctx context.Context, db *sqlx.DB) (Books, error) {
	var b Books
	err := db.SelectContext(ctx, &b.Accounts, `SELECT id, opening, balance, held, announced FROM accounts ORDER BY id`)
	if err != nil {
		return b, fmt.Errorf("read accounts: %w", err)
	}
	if err := db.SelectContext(ctx, &b.Entries, `SELECT transfer, account, amount FROM entries ORDER BY id`); err != nil {
		return b, fmt.Errorf("read entries: %w", err)
	}
	if b.InDoubt, err = inDoubt(ctx, db); err != nil {
		return b, fmt.Errorf("read branches in doubt: %w", err)
	}
	return b, nil
}

// inDoubt are the names of all branches that the server has prepared, whoever
// did it.
func inDoubt(ctx context.Context, db *sqlx.DB) (gids []string, err error) {
	if !isMySQL(db) {
		err = db.SelectContext(ctx, &gids, `SELECT gid FROM pg_prepared_xacts ORDER BY gid`)
		return gids, err
	}
	var rows []struct {
		FormatID int64  `db:"formatID"`
		Gtrid    int    `db:"gtrid_length"`
		Bqual    int    `db:"bqual_length"`
		Data     string `db:"data"`
	}
	err = db.SelectContext(ctx, &rows, `XA RECOVER`)
	for _, r := range rows {
		gids = append(gids, r.Data)
	}
	return gids, err
}

func isMySQL(db *sqlx.DB) bool { return db.DriverName() == "mysql" }
