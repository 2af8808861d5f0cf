package sqlite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
	"github.com/ringmaster-dev/ringmaster/store/storetest"
)

// childPath names, in the environment, the database that the process is to
// commit to until it is killed.
const childPath = "STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childPath); path != "" {
		fmt.Fprintln(os.Stderr, commitForEver(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const childSeed = 21

// commitForEver makes a script's commits and prints the number of each once it
// is acknowledged.
func commitForEver(path string) error {
	ctx := context.Background()
	s, err := tuned(path)
	if err != nil {
		return err
	}
	script := storetest.NewScript(childSeed)
	if err := script.Begin(ctx, s); err != nil {
		return err
	}
	for n := 1; ; n++ {
		if err := script.Commit(s); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// tuned opens a store whose checkpoints are as frequent as can be.
func tuned(path string, pragmas ...string) (*sqlite.Store, error) {
	cfg := sqlite.Config{Path: path, Shards: storetest.ScriptShards, Logger: quiet}
	return sqlite.OpenTuned(context.Background(), cfg, 20, pragmas...)
}

func TestKilledProcessLeavesWhatItAcknowledgedAndNoLock(t *testing.T) {
	for _, commits := range []int{1, 17, 80} {
		path := filepath.Join(t.TempDir(), "store.db")
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childPath+"="+path)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines, last := bufio.NewScanner(out), 0
		for last < commits && lines.Scan() {
			last, _ = strconv.Atoi(lines.Text())
		}
		_, err = open(t.Context(), path, 0)
		if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(child.Process.Pid)) {
			t.Errorf("opening what another process has open: %v; want ErrLocked and the number of that process", err)
		}
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() {
			last, _ = strconv.Atoi(lines.Text())
		}
		_ = child.Wait() // it was killed
		if last < commits {
			t.Fatalf("the process ended after %d commits", last)
		}
		storetest.Verify(t, file(path), childSeed, last, last+1)
	}
}

func TestFullDiskFailsTheCommitAndKeepsWhatWasAcknowledged(t *testing.T) {
	t.Run("page limit", func(t *testing.T) {
		fill(t, filepath.Join(t.TempDir(), "store.db"), "max_page_count = 120")
	})
	t.Run("file system", func(t *testing.T) {
		dir := t.TempDir()
		if !smallFileSystem(t, dir) {
			t.Log("not root: only the page limit was tried")
			return
		}
		fill(t, filepath.Join(dir, "store.db"))
	})
}

// fill commits to a new store until that fails, and checks what is left.
func fill(t *testing.T, path string, pragmas ...string) {
	const seed = 22
	ctx := t.Context()
	s, err := tuned(path, pragmas...)
	if err != nil {
		t.Fatal(err)
	}
	script := storetest.NewScript(seed)
	if err := script.Begin(ctx, s); err != nil {
		t.Fatal(err)
	}
	acknowledged := 0
	for err = script.Commit(s); err == nil; err = script.Commit(s) {
		acknowledged++
	}
	t.Logf("%d commits, then: %v", acknowledged, err)
	if acknowledged < 10 || !strings.Contains(err.Error(), "full") {
		t.Errorf("failed after %d commits with %v; want a full disk after at least 10", acknowledged, err)
	}
	if _, err := s.Commit([]store.Part{{}}); err == nil {
		t.Error("a store took a commit after one had failed")
	}
	if _, _, err := s.Acquire(ctx, 0, "owner"); err == nil {
		t.Error("a shard was acquired after a commit had failed")
	}
	if err := s.Check(ctx); err == nil {
		t.Error("a store is sound after a commit has failed")
	}
	if runs, err := s.List(ctx, store.Filter{}); err != nil || len(runs.Runs) == 0 {
		t.Errorf("reading after a failed commit: %d runs, %v", len(runs.Runs), err)
	}
	left := crash(t, file(path), 0)
	if err := s.Close(); err != nil {
		t.Logf("closing: %v", err) // there may be no room for that either
	}
	// Both what a crash would have left and what closing left.
	storetest.Verify(t, left, seed, acknowledged, acknowledged)
	to := filepath.Join(t.TempDir(), "moved.db")
	copyFile(t, path, to)
	if _, err := os.Stat(path + "-wal"); err == nil {
		copyFile(t, path+"-wal", to+"-wal")
	}
	storetest.Verify(t, file(to), seed, acknowledged, acknowledged)
}

func TestLogStaysShortUnderLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := sqlite.OpenTuned(t.Context(), sqlite.Config{Path: path, Shards: loadShards, Logger: quiet}, 100)
	if err != nil {
		t.Fatal(err)
	}
	l := loadOn(t, s)
	wrote := writtenBytes(t)
	longest := int64(0)
	for range 600 {
		l.commit(t, l.rows(100))
		longest = max(longest, sizeOf(t, path+"-wal"))
	}
	t.Logf("wrote %d MB, longest log %d kB", (writtenBytes(t)-wrote)>>20, longest>>10)
	if longest > 30<<20 {
		t.Errorf("the log grew to %d bytes, past all checkpoints", longest)
	}
}

func sizeOf(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// A three-step saga that has ended takes at most a kilobyte, all indexes
// included.
func TestSpaceOfAnEndedSaga(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := open(t.Context(), path, loadShards)
	if err != nil {
		t.Fatal(err)
	}
	l := loadOn(t, s)
	l.limit = math.MaxInt
	const sagas = 20_000
	empty := sizeOf(t, path)
	for started := 0; started < sagas; started += 500 {
		l.commit(t, l.rows(1000))
	}
	l.limit = 0
	for len(l.live) > 0 {
		l.commit(t, l.rows(1000))
	}
	counts, err := s.Counts(t.Context())
	if err != nil || counts["order"][store.StatusSucceeded] != sagas {
		t.Fatalf("counts are %v, %v", counts, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	each := float64(sizeOf(t, path)-empty) / sagas
	t.Logf("%.0f bytes a saga", each)
	if each > 1000 {
		t.Errorf("%.0f bytes a saga; want at most 1000", each)
	}
}
