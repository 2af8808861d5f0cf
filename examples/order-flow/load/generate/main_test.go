package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestCommittedFilesAreWhatTheSeedGives(t *testing.T) {
	for name, want := range generate(seed) {
		got, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from what the generator writes: run go generate ./examples/order-flow/load", name)
		}
	}
}

func TestAnotherSeedGivesAnotherDay(t *testing.T) {
	if bytes.Equal(generate(seed)["orders.jsonl"], generate(seed + 1)["orders.jsonl"]) {
		t.Error("the seed changes nothing")
	}
}
