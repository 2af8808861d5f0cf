package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

// maxProfile bounds the length of a CPU profile.
const maxProfile = 10 * time.Second

func (b *bench) profileFile(name string) string {
	return filepath.Join(b.o.profile, name+".pprof")
}

// profiled measures and, where profiles are asked for, takes CPU profiles of
// the orchestrator and of a worker meanwhile and shows where the time went. The
// orchestrator's metrics are kept with them.
func (b *bench) profiled(ctx context.Context, s *system, name string, length time.Duration, measure func(during) (outcome, error)) (outcome, error) {
	if b.o.profile == "" {
		return measure(nothing)
	}
	seconds := max(1, int(min(length, maxProfile)/time.Second)-1)
	processes := map[string]string{"orchestrator": s.daemonPpr, "worker": s.workerPpr}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	o, err := measure(func(ctx context.Context) {
		for process, address := range processes {
			url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", address, seconds)
			wg.Go(func() {
				if err := fetch(ctx, url, b.profileFile(process+"-"+name)); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, fmt.Errorf("profile the %s: %w", process, err))
				}
			})
		}
	})
	wg.Wait()
	if err := errors.Join(append(errs, err)...); err != nil {
		return o, err
	}
	if err := fetch(ctx, "http://"+s.listen+"/metrics", filepath.Join(b.o.profile, "metrics-"+name+".txt")); err != nil {
		return o, err
	}
	for process := range processes {
		file := b.profileFile(process + "-" + name)
		top, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-cum", "-nodecount=60", file).CombinedOutput()
		if err != nil {
			return o, fmt.Errorf("go tool pprof: %w\n%s", err, top)
		}
		b.say("\n%s: %s\n%s", process, file, top)
	}
	return o, nil
}

// fetch stores the answer of a request in a file.
func fetch(ctx context.Context, url, file string) (err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, res.Body)
	return errors.Join(err, f.Close())
}
