package docstest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/ringmaster-dev/ringmaster/"

// packages returns what each package of the module imports of the module.
func packages(t *testing.T) map[string][]string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...")
	command.Dir = root
	var problems bytes.Buffer
	command.Stderr = &problems
	list, err := command.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &problems)
	}
	imports := map[string][]string{}
	for line := range strings.Lines(string(list)) {
		fields := strings.Fields(line)
		name, ok := strings.CutPrefix(fields[0], module)
		if !ok {
			continue
		}
		imports[name] = nil
		for _, path := range fields[1:] {
			if own, ok := strings.CutPrefix(path, module); ok {
				imports[name] = append(imports[name], own)
			}
		}
	}
	return imports
}

// Every package has its line on the map, or belongs to one that has.
func TestMapIsComplete(t *testing.T) {
	_, table, ok := strings.Cut(read(t, "ARCHITECTURE.md"), "## Packages\n")
	if !ok {
		t.Fatal("there is no map of packages")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	for name := range packages(t) {
		if name == "internal/testenv/cmd" || strings.HasPrefix(name, "examples/order-flow/") || strings.HasPrefix(name, "examples/bank-transfer/") ||
			strings.HasPrefix(name, "chaos/internal/") {
			continue // parts of the line of the folder above
		}
		if !strings.Contains(table, "`"+name+"`") {
			t.Errorf("%s is not on the map", name)
		}
	}
}

var codePattern = regexp.MustCompile("`([A-Za-z0-9_./-]+)`")

// Every file and folder that the page names exists.
func TestNamedFilesExist(t *testing.T) {
	for _, page := range []string{"ARCHITECTURE.md", "README.md", "docs/README.md", "docs/metrics.md", "docs/operations.md"} {
		for _, m := range codePattern.FindAllStringSubmatch(read(t, page), -1) {
			path := m[1]
			if first, _, more := strings.Cut(path, "/"); !more || first == "" || first == "." || !exists(first) {
				continue // not a path from the top of the repository
			}
			if !exists(path) {
				t.Errorf("%s names %s, which does not exist", page, path)
			}
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(filepath.Join(root, path))
	return err == nil
}

// Imports point one way, as the map says.
func TestImportsPointOneWay(t *testing.T) {
	// Who, and which of our packages it may import.
	rules := []struct {
		who     string
		allowed []string
	}{
		{"definitions", nil},
		{"ring", nil},
		{"protocol/rest", nil},
		{"protocol", []string{"broker"}},
		{"engine/machine", []string{"definitions"}},
		{"broker", nil},
		{"store", nil},
		{"broker/rabbit", []string{"broker", "broker/internal/mailbox"}},
		{"broker/memory", []string{"broker", "broker/internal/mailbox"}},
		{"store/sqlite", []string{"store"}},
		{"worker", []string{"broker", "definitions", "protocol"}},
		{"worker/inbox", []string{"definitions", "protocol", "worker"}},
		{"worker/lease", []string{"definitions", "lock", "protocol", "worker", "worker/inbox"}},
		{"worker/outbox", []string{"broker", "protocol", "protocol/rest"}},
		{"client", []string{"definitions", "protocol/rest"}},
		{"lock", nil},
		{"lock/internal/session", []string{"lock"}},
		{"lock/postgres", []string{"lock", "lock/internal/session"}},
		{"lock/redis", []string{"lock", "lock/internal/session"}},
		{"lock/zookeeper", []string{"lock", "lock/internal/session"}},
		{"lock/etcd", []string{"lock", "lock/internal/session"}},
		{"lock/open", []string{"lock", "lock/etcd", "lock/postgres", "lock/redis", "lock/zookeeper"}},
		{"engine/lockqueue", nil},
		{"archive", []string{"definitions", "engine/lockqueue", "engine/machine", "store"}},
		{"engine", []string{"archive", "broker", "definitions", "engine/lockqueue", "engine/machine", "lock", "protocol", "protocol/rest", "ring", "store"}},
		{"api", []string{"archive", "engine", "protocol/rest", "store"}},
	}
	imports := packages(t)
	for _, rule := range rules {
		of, ok := imports[rule.who]
		if !ok {
			t.Errorf("there is no package %s", rule.who)
		}
		for _, path := range of {
			if !slices.Contains(rule.allowed, path) {
				t.Errorf("%s imports %s; it may import %q", rule.who, path, rule.allowed)
			}
		}
	}
}
