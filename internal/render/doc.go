// Package render draws for terminals: text that cannot harm one, colours,
// times and durations as people say them, and graphs of steps.
package render
