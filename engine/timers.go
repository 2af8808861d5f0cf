package engine

import (
	"container/heap"

	"github.com/ringmaster-dev/ringmaster/protocol"
)

// alarm is a moment at which a shard looks at a run: for a Tick of the core,
// or, with an attempt set, because that may have waited too long.
type alarm struct {
	at  int64           // Unix ms
	key protocol.TaskID // Ref alone: a Tick; with lockPhase: see askAlarm
}

// tickOf is the key of a run's Tick.
func tickOf(ref int64) protocol.TaskID { return protocol.TaskID{Ref: ref} }

// alarms holds a shard's alarms, the earliest first, at most one a key. What
// has lost its meaning is removed: runs may end long before their deadlines.
type alarms struct {
	heap  alarmHeap
	index map[protocol.TaskID]int // place in heap
}

func newAlarms() alarms {
	a := alarms{index: map[protocol.TaskID]int{}}
	a.heap.moved = func(key protocol.TaskID, i int) { a.index[key] = i }
	return a
}

// set sets the alarm of a key, in place of the one before.
func (a *alarms) set(x alarm) {
	if i, ok := a.index[x.key]; ok {
		a.heap.list[i] = x
		heap.Fix(&a.heap, i)
		return
	}
	heap.Push(&a.heap, x)
}

// clear removes the alarm of a key, if there is one.
func (a *alarms) clear(key protocol.TaskID) {
	if i, ok := a.index[key]; ok {
		heap.Remove(&a.heap, i)
		delete(a.index, key)
	}
}

// next is when the earliest alarm is.
func (a *alarms) next() (at int64, ok bool) {
	if len(a.heap.list) == 0 {
		return 0, false
	}
	return a.heap.list[0].at, true
}

// due takes the alarms at or before now.
func (a *alarms) due(now int64, buf []alarm) []alarm {
	for len(a.heap.list) > 0 && a.heap.list[0].at <= now {
		x := heap.Pop(&a.heap).(alarm)
		delete(a.index, x.key)
		buf = append(buf, x)
	}
	return buf
}

// alarmHeap is the heap.Interface of alarms.
type alarmHeap struct {
	list  []alarm
	moved func(protocol.TaskID, int)
}

func (h *alarmHeap) Len() int           { return len(h.list) }
func (h *alarmHeap) Less(i, j int) bool { return h.list[i].at < h.list[j].at }
func (h *alarmHeap) Swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	h.moved(h.list[i].key, i)
	h.moved(h.list[j].key, j)
}

func (h *alarmHeap) Push(x any) {
	h.list = append(h.list, x.(alarm))
	h.moved(x.(alarm).key, len(h.list)-1)
}

func (h *alarmHeap) Pop() any {
	last := h.list[len(h.list)-1]
	h.list = h.list[:len(h.list)-1]
	return last
}
