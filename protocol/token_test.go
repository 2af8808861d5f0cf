package protocol

import (
	"errors"
	"strings"
	"testing"
)

func TestTokensThatAreNoneAreRefused(t *testing.T) {
	task := exampleTasks()[0]
	task.Tokens = []Token{{"account/é 1", 7}, {"b", 1<<63 - 1}}
	m := EncodeTask(Version, "q", task)
	if got := m.Headers[HeaderTokens]; got != "7 account/é 1\n9223372036854775807 b" {
		t.Errorf("the header is %q", got)
	}
	for _, text := range []string{
		"7", "7 ", " a", "x a", "0 a", "-1 a", "07 a", "+7 a", "9223372036854775808 a", "7 a\n", "\n7 a", "7 a\n\n8 b", "7 a\tb",
		"7 " + strings.Repeat("x", MaxTokenNameBytes+1), strings.TrimSuffix(strings.Repeat("7 a\n", MaxTokensBytes/4+1), "\n"),
	} {
		m.Headers[HeaderTokens] = text
		if _, _, _, err := DecodeTasks(&m); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), HeaderTokens) {
			t.Errorf("%.30q: error is %v", text, err)
		}
	}
	m.Headers[HeaderTokens] = 7
	if _, _, _, err := DecodeTasks(&m); !errors.Is(err, ErrMalformed) {
		t.Errorf("a number: error is %v", err)
	}
}

func TestABatchEntryWithBadTokensFailsAlone(t *testing.T) {
	good, bad := *exampleTasks()[0], *exampleTasks()[0]
	bad.Tokens = []Token{{"a\x01", 7}}
	m := EncodeTasks(Version, "q", "o", 0, []*Task{&good, &bad, &good})
	tasks, _, faulty, err := DecodeTasks(&m)
	if err != nil || len(tasks) != 2 || len(faulty) != 1 || faulty[0].Index != 1 {
		t.Errorf("%d tasks, faulty %v, error %v", len(tasks), faulty, err)
	}
}
