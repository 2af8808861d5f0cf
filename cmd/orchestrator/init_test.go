package main

import (
	"bytes"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The first project compiles, passes its tests, and prints what its README says.
func TestInitWritesAProjectThatRuns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shop")
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var out, problems bytes.Buffer
	if status := run([]string{"init", dir, "--module", "example.com/acme/shop"}, strings.NewReader(""), &out, &problems); status != exitDone {
		t.Fatalf("exit status %d: %s", status, &problems)
	}
	for _, name := range []string{"main.go", "order.go", "order_test.go"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if formatted, err := format.Source(text); err != nil || !bytes.Equal(formatted, text) {
			t.Errorf("%s is not as gofmt would have it: %v", name, err)
		}
	}
	// What the project needs this module needs too, so that hardly anything is
	// fetched; -mod=mod fills in go.mod as "go mod tidy" would.
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o600); err != nil {
		t.Fatal(err)
	}
	goTool := func(args ...string) string {
		t.Helper()
		command := exec.CommandContext(t.Context(), "go", args...)
		command.Dir = dir
		command.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "TMPDIR="+t.TempDir())
		text, err := command.CombinedOutput()
		if err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, text)
		}
		return string(text)
	}
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if printed := goTool("run", "."); !strings.Contains(string(readme), "\n```\n"+printed+"```\n") {
		t.Errorf("the README does not show what the program prints:\n%s", printed)
	}
	goTool("test", ".")
}
