package render

// Style colours text, or leaves it plain. The zero value leaves it plain.
type Style struct {
	// Color switches colours on.
	Color bool
}

// The colours that are used.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	cyan   = "36"
	faint  = "2"
	bold   = "1"
)

func (s Style) paint(code, text string) string {
	if !s.Color || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Bold stresses text.
func (s Style) Bold(text string) string { return s.paint(bold, text) }

// Faint puts text into the background.
func (s Style) Faint(text string) string { return s.paint(faint, text) }

// Good, Bad and Warn mark text as what they say.
func (s Style) Good(text string) string { return s.paint(green, text) }

// Bad marks text as a failure.
func (s Style) Bad(text string) string { return s.paint(red, text) }

// Warn marks text as something to look at.
func (s Style) Warn(text string) string { return s.paint(yellow, text) }

// State colours text by the status of a run, the state of a step or that of a
// worker.
func (s Style) State(state, text string) string {
	switch state {
	case "succeeded", "committed", "ready", "ok", "active":
		return s.paint(green, text)
	case "failed", "stalled", "unreachable", "incompatible", "fail":
		return s.paint(red, text)
	case "compensating", "compensated", "aborted", "unknown", "retrying", "waived", "silent", "draining", "warn":
		return s.paint(yellow, text)
	case "running":
		return s.paint(cyan, text)
	case "pending", "not run", "waiting", "sleeping", "skipped":
		return s.paint(faint, text)
	}
	return text
}

// Symbol is the sign of a step's state. Every state has one, so that it can be
// told without colours.
func Symbol(state string) string {
	switch state {
	case "pending":
		return "○"
	case "waiting", "sleeping":
		return "◌"
	case "running":
		return "▶"
	case "retrying":
		return "↻"
	case "succeeded":
		return "✔"
	case "skipped":
		return "−"
	case "failed":
		return "✘"
	case "unknown":
		return "?"
	case "compensating":
		return "◀"
	case "compensated":
		return "↩"
	case "stalled":
		return "!"
	case "waived":
		return "~"
	case "resolved":
		return "✓"
	}
	return "•"
}
