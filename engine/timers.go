package engine

import (
	"container/heap"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// alarm is a moment at which a shard looks at a run: for a Tick of the core,
// or, with a task set, because that task may have waited too long.
type alarm struct {
	at   int64 // Unix ms
	ref  int64
	task protocol.TaskID // zero: a Tick
}

// alarms is a heap of a shard's near future. Entries are never removed: one
// that has lost its meaning changes nothing when it fires.
type alarms []alarm

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].at < a[j].at }
func (a alarms) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *alarms) Push(x any)        { *a = append(*a, x.(alarm)) }
func (a *alarms) Pop() any {
	old := *a
	last := old[len(old)-1]
	*a = old[:len(old)-1]
	return last
}

func (a *alarms) add(x alarm) { heap.Push(a, x) }

// due takes the alarms at or before now.
func (a *alarms) due(now int64, buf []alarm) []alarm {
	for len(*a) > 0 && (*a)[0].at <= now {
		buf = append(buf, heap.Pop(a).(alarm))
	}
	return buf
}
