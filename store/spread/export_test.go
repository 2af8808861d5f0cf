package spread

import "time"

// Hook has f called at each point at which a move may end; its error ends it. It
// also spares the wait for readers.
func Hook(s *Store, f func(point string) error) {
	s.hook, s.grace = f, time.Millisecond
}
