package docstest

import (
	"bytes"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var settingPattern = regexp.MustCompile("(?m)^\\| (`[^|]*`) \\| *([^|]*?) *\\|")

// The page lists every setting of the daemon, with its default.
func TestSettingsAreDescribed(t *testing.T) {
	_, section, ok := strings.Cut(read(t, "docs/operations.md"), "## Settings\n")
	if !ok {
		t.Fatal("there is no section on settings")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	described := map[string]string{}
	for _, m := range settingPattern.FindAllStringSubmatch(section, -1) {
		defaults := strings.Split(m[2], ",")
		for i, name := range strings.Split(m[1], ",") {
			described[strings.Trim(name, " `")] = strings.TrimSpace(defaults[i])
		}
	}
	command := exec.CommandContext(t.Context(), "go", "run", "./cmd/orchestrator", "serve", "--print-config")
	command.Dir = root
	// A variable of the machine must not stand for a default.
	command.Env = slices.DeleteFunc(command.Environ(), func(v string) bool { return strings.HasPrefix(v, "RINGMASTER_") })
	var problems bytes.Buffer
	command.Stderr = &problems
	printed, err := command.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &problems)
	}
	for line := range strings.Lines(string(printed)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		text, ok := described[name]
		if !ok {
			t.Errorf("the setting %s is not described", name)
		}
		value = strings.Trim(value, `"`)
		if quoted := strings.Trim(text, "`"); value != quoted && (value != "" || quoted != text) {
			t.Errorf("%s is %q by default, and described as %s", name, value, text)
		}
		delete(described, name)
	}
	for name := range described {
		t.Errorf("there is no setting %s", name)
	}
}
