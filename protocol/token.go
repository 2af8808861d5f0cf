package protocol

import (
	"strconv"
	"strings"
)

// Token is a fencing token: a number that only grows, for each name. Who keeps
// the highest that it has seen of a name, and refuses a lower one, is safe from a
// worker that was thought to be gone and goes on.
type Token struct {
	Name  string // of a named lock; or "serial:WORKFLOW/KEY", of a serial workflow's routing key
	Token uint64 // from 1
}

// formatTokens writes tokens as they travel: a line for each, the number, a
// space, and the name.
func formatTokens(tokens []Token) string {
	if len(tokens) == 0 {
		return ""
	}
	var b []byte
	for i, t := range tokens {
		if i > 0 {
			b = append(b, '\n')
		}
		b = strconv.AppendUint(b, t.Token, 10)
		b = append(b, ' ')
		b = append(b, t.Name...)
	}
	return string(b)
}

// parseTokens is the reverse; fault says what is wrong.
func parseTokens(text string) (tokens []Token, fault string) {
	if text == "" {
		return nil, ""
	}
	if len(text) > MaxTokensBytes {
		return nil, "longer than " + strconv.Itoa(MaxTokensBytes) + " bytes"
	}
	for line := range strings.SplitSeq(text, "\n") {
		number, name, _ := strings.Cut(line, " ")
		n, err := strconv.ParseUint(number, 10, 63)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != number || name == "" || !goodName(name, MaxTokenNameBytes) {
			return nil, strconv.QuoteToASCII(cut(line, 40)) + " is not a number from 1, a space and a name"
		}
		tokens = append(tokens, Token{Name: name, Token: n})
	}
	return tokens, ""
}

// tokensSize is an upper bound of what formatTokens writes.
func tokensSize(tokens []Token) (n int) {
	const number = 22 // digits, a space and a line's end
	for i := range tokens {
		n += number + len(tokens[i].Name)
	}
	return n
}
