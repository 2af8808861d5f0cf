package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/ringmaster-dev/ringmaster/chaos/internal/link"
)

// survey is what was in flight at a moment, by process; of one that does not
// answer, what it said when it did last.
type survey map[string]samples

// surveyor looks at all processes that serve metrics.
type surveyor struct {
	addresses map[string]string // by process

	mu   sync.Mutex
	last survey
}

func (s *surveyor) look(ctx context.Context) survey {
	var all sync.WaitGroup
	for name, address := range s.addresses {
		all.Go(func() {
			sums := scrape(ctx, address)
			if sums == nil {
				return
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.last[name] = sums
		})
	}
	all.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.last)
}

// tasks are those that an orchestrator has under way.
func (s survey) tasks(orchestrator string) (sent, waiting int) {
	m := s[orchestrator]
	return int(m["ringmaster_tasks_in_flight"]), int(m["ringmaster_tasks_waiting"])
}

// allTasks are those that any orchestrator has under way.
func (s survey) allTasks() (n int) {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		sent, waiting := s.tasks(name)
		n += sent + waiting
	}
	return n
}

func busyOrchestrator(name string) func(survey) (int, string) {
	return func(s survey) (int, string) {
		sent, waiting := s.tasks(name)
		runs := int(s[name]["ringmaster_runs_unfinished"])
		return max(sent+waiting, runs), fmt.Sprintf("%d tasks out, %d waiting, %d runs", sent, waiting, runs)
	}
}

func busyWorker(name string) func(survey) (int, string) {
	return func(s survey) (int, string) {
		running, queued := int(s[name]["ringmaster_worker_running"]), int(s[name]["ringmaster_worker_queued"])
		held := int(s[name]["ringmaster_worker_held_results"])
		return running + queued + held, fmt.Sprintf("%d tasks running, %d queued, %d results", running, queued, held)
	}
}

// busyServer is a node of the broker, or the database: what is under way anywhere
// may be under way there, if anybody is connected to it.
func busyServer(wires []*link.Link) func(survey) (int, string) {
	return func(s survey) (int, string) {
		connections := 0
		for _, w := range wires {
			connections += w.Connections()
		}
		if connections == 0 {
			return 0, "nobody was connected to it"
		}
		tasks := s.allTasks()
		return tasks, fmt.Sprintf("%d connections, %d tasks in all", connections, tasks)
	}
}

func busyDisk(s survey) (int, string) {
	tasks := s.allTasks()
	return tasks, fmt.Sprintf("%d tasks in all", tasks)
}
