package postgres_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/store/storetest"
)

// testdata has a dump of a store of each version of the schema. A new migration
// leaves them as they are; a dump of what it makes goes beside them.
func TestStoresOfEveryVersionAreUpgraded(t *testing.T) {
	migrations, err := filepath.Glob("migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for version := 1; version <= len(migrations); version++ {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			dump, err := os.ReadFile(fmt.Sprintf("testdata/version-%d.sql", version))
			if err != nil {
				t.Fatal(err)
			}
			d := schema{testenv.Postgres(t), "ringmaster"} // as the dump has it
			d.exec(t, string(dump))
			s, err := d.Open(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			storetest.Upgraded(t, s, storetest.Kept{Locks: true, Tombstones: true, Parents: true, Retention: true})
		})
	}
}
