// Package spelling finds what somebody who misspelt a name has probably meant.
package spelling

import "strings"

// Nearest returns the name that is most like word, or "" if none is. Capitals,
// and whether words are joined by - or _, make no difference.
func Nearest(word string, names []string) string {
	word = plain(word)
	best, least := "", max(2, len(word)/4)+1
	for _, name := range names {
		if d := distance(word, plain(name)); d < least {
			best, least = name, d
		}
	}
	if least >= len(word) {
		return "" // everything is near a word of one or two letters
	}
	return best
}

func plain(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }

// distance is the number of bytes to insert, remove or change, or of neighbours
// to swap, that make b of a.
func distance(a, b string) int {
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			change := row[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			next[j] = min(row[j]+1, next[j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
