package render

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Clean makes text from elsewhere safe to print in one line: control
// characters, which could move a terminal's cursor or hide text, become
// visible, and so do characters that change the direction of writing.
func Clean(s string) string {
	harmless := true
	for _, r := range s {
		if !printable(r) {
			harmless = false
			break
		}
	}
	if harmless {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case printable(r):
			b.WriteRune(r)
		case r == '\n':
			b.WriteString("⏎ ")
		case r == '\t':
			b.WriteByte(' ')
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// CleanBlock is Clean for text of several lines.
func CleanBlock(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = Clean(strings.ReplaceAll(l, "\t", "    "))
	}
	return strings.Join(lines, "\n")
}

func printable(r rune) bool {
	switch {
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f:
		return false
	}
	return unicode.IsPrint(r)
}

// Shorten cuts text to at most n characters, the last of which then is an ellipsis.
func Shorten(s string, n int) string {
	r := []rune(s)
	if n < 1 || len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// Duration says how long something took, with two or three digits that matter.
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + Duration(-d)
	case d < time.Microsecond:
		return "0s"
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return compound(d.Round(time.Second), time.Minute, "m", time.Second, "s")
	case d < 24*time.Hour:
		return compound(d.Round(time.Minute), time.Hour, "h", time.Minute, "m")
	}
	return compound(d.Round(time.Hour), 24*time.Hour, "d", time.Hour, "h")
}

func compound(d, unit time.Duration, name string, rest time.Duration, restName string) string {
	s := fmt.Sprintf("%d%s", d/unit, name)
	if r := d % unit / rest; r > 0 {
		s += fmt.Sprintf("%d%s", r, restName)
	}
	return s
}

// Since says how long ago a time was, or how far ahead it is.
func Since(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := now.Sub(t)
	switch {
	case d > -time.Second && d < time.Second:
		return "now"
	case d < 0:
		return "in " + Duration(-d)
	}
	return Duration(d) + " ago"
}

// Count joins a number and the word for what is counted.
func Count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
