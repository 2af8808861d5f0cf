package config

import (
	"fmt"
	"strconv"
	"strings"
)

// Statuses is a set of HTTP statuses. The zero value is empty.
type Statuses struct{ in [600]bool }

// Has tells whether the status is in the set.
func (s *Statuses) Has(status int) bool {
	return status >= 0 && status < len(s.in) && s.in[status]
}

// add takes "503", "5xx" or "500-599".
func (s *Statuses) add(text string) error {
	first, last, isRange := strings.Cut(strings.ToLower(strings.TrimSpace(text)), "-")
	if !isRange {
		last = first
		if class, ok := strings.CutSuffix(first, "xx"); ok {
			first, last = class+"00", class+"99"
		}
	}
	from, err1 := strconv.Atoi(first)
	to, err2 := strconv.Atoi(last)
	if err1 != nil || err2 != nil || from < 200 || to > 599 || from > to {
		return fmt.Errorf(`%q is not a status from 200 to 599, a class such as "5xx", or a range such as "500-504"`, text)
	}
	for status := from; status <= to; status++ {
		s.in[status] = true
	}
	return nil
}

// remove takes out what is in other.
func (s *Statuses) remove(other *Statuses) {
	for status, in := range other.in {
		if in {
			s.in[status] = false
		}
	}
}

// shared returns the lowest status that is in both; 0 if there is none.
func (s *Statuses) shared(other *Statuses) int {
	for status, in := range other.in {
		if in && s.in[status] {
			return status
		}
	}
	return 0
}

// statuses makes a set of what is known to be well written.
func statuses(texts ...string) Statuses {
	var s Statuses
	for _, t := range texts {
		if err := s.add(t); err != nil {
			panic(err)
		}
	}
	return s
}
