// Package archive writes runs as JSON Lines and reads them again: to keep those
// that are removed ([Dir]), to take them out of a store ([Exporter]) and to bring
// them into another ([Import]), whatever kind of store that is and however many
// shards it has.
//
// A file has one JSON object in each line, with one member that says what the line
// is: the header, which is the first; definitions of workflows; runs, each with
// its row and its whole history; tombstones; and, in an export, the end with what
// there should be, so that a file that was cut off is not taken for whole.
// Definitions come before the runs that need them.
//
// History is kept as it is stored, byte for byte, since it is the truth; whatever
// is imported is folded first, and refused if the state is not what the row says.
package archive
