package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// maxExposure is what systemd may say of a unit, in tenths: 0 is none, 100 is
// that of a unit without restrictions. What is left is that it uses the network.
const maxExposure = "20"

var programPattern = regexp.MustCompile(`/usr/local/bin/[a-z]+`)

// lintUnits has systemd look at each unit of a folder. Programs that are not
// installed here are replaced by one that is, since systemd looks for them.
func lintUnits(ctx context.Context, dir string) (problems []problem, err error) {
	units, err := filepath.Glob(filepath.Join(dir, "*.service"))
	if err != nil || len(units) == 0 {
		return nil, errors.Join(err, errors.New("there are no units"))
	}
	temp, err := os.MkdirTemp("", "ringmaster-units-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			return nil, err
		}
		if !programPattern.Match(text) {
			problems = append(problems, problem{unit, "it starts no program of /usr/local/bin"})
		}
		copied := filepath.Join(temp, filepath.Base(unit))
		if err := os.WriteFile(copied, programPattern.ReplaceAll(text, []byte("/bin/true")), 0o600); err != nil {
			return nil, err
		}
		for _, args := range [][]string{
			{"verify", "--man=no", copied},
			{"security", "--no-pager", "--offline=true", "--threshold=" + maxExposure, copied},
		} {
			found, err := analyze(ctx, args...)
			if err != nil {
				return nil, err
			}
			for _, text := range found {
				problems = append(problems, problem{unit, strings.TrimPrefix(text, copied+":")})
			}
		}
	}
	return problems, nil
}

// analyze runs systemd-analyze and returns what it found: whatever it says on
// its standard error, and that it failed. It warns of faults such as unknown keys without failing.
func analyze(ctx context.Context, args ...string) (found []string, err error) {
	cmd := exec.CommandContext(ctx, "systemd-analyze", args...)
	var out, said strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	for line := range strings.Lines(said.String()) {
		found = append(found, strings.TrimSpace(line))
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && args[0] == "security":
		return append(found, "more exposed than it may be: "+lastLine(out.String())), nil
	case errors.As(err, &exit) && len(found) > 0:
		return found, nil
	case err != nil:
		return found, fmt.Errorf("systemd-analyze %s (Debian's package systemd): %w", args[0], err)
	}
	return found, nil
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
