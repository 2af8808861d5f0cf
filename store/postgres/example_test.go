package postgres_test

import (
	"context"
	"fmt"
	"log"

	"github.com/ringmaster-dev/ringmaster/store/postgres"
)

// An orchestrator of one's own keeps its state in a schema of a database.
func ExampleOpen() {
	ctx := context.Background()
	s, err := postgres.Open(ctx, postgres.Config{
		URL:    "postgres://ringmaster:secret@db.example.com/ringmaster?sslmode=verify-full",
		Schema: "orders",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	fmt.Println(s.Shards()) // Config.Store of package engine takes s
}
