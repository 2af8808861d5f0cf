package fleet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/stage"
)

// sh is a member that is a shell script.
func sh(t *testing.T, script string) *Member {
	t.Helper()
	m := New(&stage.Process{
		Name: "script", Path: "/bin/sh", Args: []string{"-c", script}, Log: filepath.Join(t.TempDir(), "log"), Apart: true,
	}, time.Minute)
	t.Cleanup(func() { m.Kill() })
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	return m
}

// lines waits until the script has written so many lines, or more.
func lines(t *testing.T, m *Member, want int) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		b, err := os.ReadFile(m.Log())
		if err != nil {
			t.Fatal(err)
		}
		n := strings.Count(string(b), "\n")
		if n >= want {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%d lines, want %d:\n%s", n, want, b)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

const forever = `echo up; trap 'echo down; exit 3' TERM; while :; do sleep 0.01; done`

func TestOneThatEndsByItselfIsStartedAgain(t *testing.T) {
	m := sh(t, `echo up`)
	lines(t, m, 2)
	exits := m.Exits() // before the second, at least
	if len(exits) == 0 || exits[0].Name != "script" || exits[0].Status != "status 0" {
		t.Errorf("%+v", exits)
	}
}

func TestOneThatWasKilledStaysDown(t *testing.T) {
	m := sh(t, forever)
	lines(t, m, 1)
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := m.Pause(); err == nil {
		t.Error("something was there to be paused")
	}
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	lines(t, m, 2)
	if exits := m.Exits(); len(exits) != 0 {
		t.Errorf("%+v: nobody ended by itself", exits)
	}
}

func TestOneThatIsPausedCanBeKilled(t *testing.T) {
	m := sh(t, forever)
	lines(t, m, 1)
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
}

func TestARestartTellsHowItEnded(t *testing.T) {
	m := sh(t, forever)
	lines(t, m, 1)
	how, err := m.Restart()
	if err != nil || !strings.Contains(how, "exit status 3") {
		t.Errorf("%q, %v", how, err)
	}
	lines(t, m, 3) // up, down, up
}
