package sqlite_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

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
			path := filepath.Join(t.TempDir(), "store.db")
			edit(t, path, string(dump))
			s, err := open(t.Context(), path, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			storetest.Upgraded(t, s, storetest.Kept{Locks: version >= 2, Tombstones: version >= 3, Parents: version >= 4, Retention: version >= 5})
		})
	}
}
