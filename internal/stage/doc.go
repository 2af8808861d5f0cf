// Package stage is what the demonstrations of the examples have in common: the
// processes that they start, kill and start again, and the lines that they
// print meanwhile.
package stage
