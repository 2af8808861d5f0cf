package docstest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// deployed are the files for deployments, with what is in them.
func deployed(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	walk(t, func(path string) {
		if strings.HasPrefix(path, "deploy/") && !strings.HasPrefix(path, "deploy/lint/") && filepath.Ext(path) != ".md" {
			found[path] = read(t, path)
		}
	})
	if len(found) < 10 {
		t.Fatalf("there are only %d files", len(found))
	}
	return found
}

// runProgram runs a program of this module and returns what it prints.
func runProgram(t *testing.T, env []string, program string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", append([]string{"run", "./" + program}, args...)...)
	command.Dir = root
	command.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "RINGMASTER_") })
	command.Env = append(command.Env, env...)
	out, err := command.CombinedOutput()
	if err != nil && !strings.Contains(strings.Join(args, " "), "-help") {
		t.Errorf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

var (
	variablePattern = regexp.MustCompile(`\bRINGMASTER_[A-Z_]+`)
	startPattern    = regexp.MustCompile(`(?m)^(?:.*(?:ExecStart\w*=|ENTRYPOINT|CMD|entrypoint:|test:|args:).*)$`)
	flagPattern     = regexp.MustCompile(`--([a-z][a-z-]+)`)
)

// Deployments use settings and flags that there are.
func TestDeploymentsUseWhatThereIs(t *testing.T) {
	table := read(t, "docs/operations.md")
	help := runProgram(t, nil, "cmd/orchestrator", "serve", "--help") + runProgram(t, nil, "cmd/worker", "--help") +
		runProgram(t, nil, "examples/order-flow/cmd/orders", "-help") + runProgram(t, nil, "examples/order-flow/cmd/deliveries-http", "-help")
	variables, flags := 0, 0
	for path, text := range deployed(t) {
		for _, name := range variablePattern.FindAllString(text, -1) {
			variables++
			setting := strings.ToLower(strings.TrimPrefix(name, "RINGMASTER_"))
			if !regexp.MustCompile("(?m)^\\| .*`" + setting + "`.* \\|").MatchString(table) {
				t.Errorf("%s: %s is no setting", path, name)
			}
		}
		for _, line := range startPattern.FindAllString(text, -1) {
			for _, m := range flagPattern.FindAllStringSubmatch(line, -1) {
				flags++
				if !regexp.MustCompile(`(?m)^ +(-\w, )?--?` + m[1] + `\b`).MatchString(help) {
					t.Errorf("%s: there is no flag --%s: %s", path, m[1], strings.TrimSpace(line))
				}
			}
		}
	}
	if variables < 10 || flags < 8 {
		t.Errorf("only %d variables and %d flags were found", variables, flags)
	}
}

// The programs themselves take the files that are made for them.
func TestDeployedConfigurationsAreAccepted(t *testing.T) {
	out := runProgram(t, nil, "cmd/orchestrator", "serve", "--config", "deploy/systemd/orchestrator.yaml", "--print-config")
	if !strings.Contains(out, "db: /var/lib/ringmaster/ringmaster.db") {
		t.Errorf("serve prints\n%s", out)
	}
	_, manifest, ok := strings.Cut(read(t, "deploy/kubernetes/worker.yaml"), "  worker.yaml: |\n")
	if !ok {
		t.Fatal("the manifest holds no worker.yaml")
	}
	manifest, _, _ = strings.Cut(manifest, "\n---")
	inPod := filepath.Join(t.TempDir(), "worker.yaml")
	check(t, os.WriteFile(inPod, []byte(regexp.MustCompile(`(?m)^    `).ReplaceAllString(manifest, "")), 0o600))
	env := []string{"RINGMASTER_NAMESPACE=ringmaster", "DELIVERIES=deliveries-http:8083"}
	for _, file := range []string{inPod, "deploy/compose/worker.yaml"} {
		if out := runProgram(t, env, "cmd/worker", "--config", file, "--check"); !strings.Contains(out, "good: service deliveries, 2 task types") {
			t.Errorf("%s: the worker says\n%s", file, out)
		}
	}
}
