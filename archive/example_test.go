package archive_test

import (
	"bytes"
	"context"
	"fmt"
	"log"

	"github.com/ringmaster-dev/ringmaster/archive"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/storetest"
)

// Runs that have ended move from one store to another, whatever kinds of store
// those are.
func Example() {
	ctx := context.Background()
	var from, to store.Store = storetest.NewModel(4), storetest.NewModel(16)

	var file bytes.Buffer
	x := archive.Exporter{Store: from, Filter: archive.Filter{Workflow: "order"}}
	if _, err := archive.Export(ctx, x.Page, "", &file, nil); err != nil {
		log.Fatal(err)
	}
	report, err := archive.Import(ctx, archive.ImportConfig{Store: to}, &file)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("runs:", report.Runs, "left as they were:", report.Left)
	// Output: runs: 0 left as they were: 0
}
