package rest

import "time"

// MaxShownWaiters is how many of a lock's waiting runs a list shows.
const MaxShownWaiters = 100

// Lock is a named lock that some run holds.
type Lock struct {
	Name         string       `json:"name"`
	Shared       bool         `json:"shared,omitempty" doc:"Its holders share it."`
	Token        uint64       `json:"token" doc:"The fencing token of those that hold it now. It only grows."`
	Holders      []LockHolder `json:"holders"`
	Waiting      []LockWaiter `json:"waiting,omitempty" doc:"Those next in the queue, the first first."`
	WaitingCount int          `json:"waiting_count" doc:"How many runs wait, also those that are not shown."`
}

// LockHolder is a run that holds a lock.
type LockHolder struct {
	Run   string    `json:"run"`
	Since time.Time `json:"since"`
}

// LockWaiter is a run that waits for a lock.
type LockWaiter struct {
	Run    string    `json:"run"`
	Shared bool      `json:"shared,omitempty" doc:"It would share the lock."`
	Since  time.Time `json:"since"`
}

// LockPage is one page of the locks that are held, by name.
type LockPage struct {
	Locks []Lock `json:"locks"`
	Next  string `json:"next,omitempty" doc:"Cursor of the next page; absent on the last."`
}

// LockFilter selects locks. The zero value selects all.
type LockFilter struct {
	Name   string // this one alone
	Limit  int    // 1 to 1,000; 0 is 50
	Cursor string // from the page before
}

// RunLock is a named lock that a run wants.
type RunLock struct {
	Name   string `json:"name"`
	Shared bool   `json:"shared,omitempty"`
	Token  uint64 `json:"token,omitempty" doc:"The fencing token under which the run got the lock; absent: it has not yet."`
}
