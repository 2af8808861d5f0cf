// Package docstest holds the documentation to the code: its tests fail when a
// page speaks of what is not there, or is silent about what is.
package docstest
