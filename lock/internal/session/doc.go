// Package session is the half of a lock provider that all providers share: it
// renews, keeps the deadline up to which the session is surely alive, says when
// it is not, and keeps the books on leases. What differs between providers is a
// [Backend].
//
// The deadline is reckoned from the moment before a renewal was sent, not from
// its answer, and ends a twentieth of the TTL early, so that it passes here
// before it can pass at a provider whose clock runs at most that much faster. It
// is looked at whenever someone asks: a process that was stopped and goes on
// learns that its session is lost from its very first question.
package session
