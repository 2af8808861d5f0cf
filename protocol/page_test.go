package protocol

import (
	"encoding/hex"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// docs/protocol.md is what authors of workers in other languages have. These
// tests hold it to the code.

func page(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// constants returns the string constants of a file by name.
func constants(t *testing.T, file, prefix string) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, name := range v.Names {
			if lit, ok := at(v.Values, i).(*ast.BasicLit); ok && lit.Kind == token.STRING && strings.HasPrefix(name.Name, prefix) {
				found[name.Name], _ = strconv.Unquote(lit.Value)
			}
		}
		return true
	})
	return found
}

func at(list []ast.Expr, i int) ast.Expr {
	if i < len(list) {
		return list[i]
	}
	return nil
}

func TestThePageNamesEveryWordOfTheProtocol(t *testing.T) {
	text := page(t)
	words := constants(t, "header.go", "Header")
	if len(words) < 30 {
		t.Fatalf("only %d header constants were found", len(words))
	}
	for _, prefix := range []string{"Kind", "Request", "ContentType", "Capability"} {
		found := constants(t, "protocol.go", prefix)
		if len(found) == 0 {
			t.Fatalf("no constant %s... was found", prefix)
		}
		for name, word := range found {
			words[name] = word
		}
	}
	for _, names := range [][]string{phaseNames[1:], outcomeNames[1:], decisionNames[:]} {
		for _, word := range names {
			words["the word "+word] = word
		}
	}
	for _, name := range []string{
		WorkerQueue("", "WORKER"), ResultsExchange(""), HeartbeatsExchange(""), AnnouncementsExchange(""),
		RequestsQueue(""), DeadLettersQueue(""),
	} {
		words["the name "+name] = strings.Replace(name, DefaultNamespace, "NS", 1)
	}
	for name, word := range words {
		if !strings.Contains(text, "`"+word+"`") {
			t.Errorf("docs/protocol.md does not say `%s` (%s)", word, name)
		}
	}
}

func TestThePageNamesEveryFieldAndLimit(t *testing.T) {
	text := page(t)
	for _, v := range []any{Heartbeat{}, Announcement{}, Control{}, Held{}, TaskID{}} {
		typ := reflect.TypeOf(v)
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if name != "" && !strings.Contains(text, "`"+name+"`") {
				t.Errorf("docs/protocol.md does not name the field `%s` of %s", name, typ.Name())
			}
		}
	}
	for what, n := range map[string]int{
		"name": MaxNameBytes, "routing key": MaxRoutingKeyBytes, "queue": MaxQueueBytes, "code": MaxCodeBytes,
		"message": MaxMessageBytes, "tokens": MaxTokensBytes, "token name": MaxTokenNameBytes, "stack": MaxStackBytes, "payload": MaxPayloadBytes, "batch entries": MaxBatchEntries,
		"batch": MaxBatchBytes, "JSON": MaxJSONBytes, "weight": MaxWeight, "capacity": MaxCapacity,
		"task types": MaxTaskTypes, "capabilities": MaxCapabilities, "held": MaxHeld, "peers": MaxPeers, "shards": MaxShards,
	} {
		if !strings.Contains(text, thousands(n)) {
			t.Errorf("docs/protocol.md does not give the limit %s (%s)", thousands(n), what)
		}
	}
}

// thousands writes 65536 as 65,536.
func thousands(n int) string {
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return thousands(n/1000) + fmt.Sprintf(",%03d", n%1000)
}

const (
	exampleOwner  = "node-a-3f9c1b7d"
	exampleWorker = "payments-1-5e0c2a91"
	exampleTrace  = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
)

// exampleTasks are those of the page; the second is there for the batch.
func exampleTasks() []*Task {
	first := Task{
		TaskID: TaskID{Ref: 7<<40 | 42, Step: 1, Phase: PhaseAction, Generation: 1, Attempt: 2},
		RunID:  "order-1001", Workflow: "order-flow", StepName: "pay", Service: "payments", Type: "payments.charge",
		RoutingKey: "customer-7", Shard: 7, Epoch: 3, Owner: exampleOwner, Seq: 118, Timeout: 30 * time.Second,
		NotAfter: time.UnixMilli(1_798_761_600_000).UTC(), Trace: exampleTrace, Payload: []byte(`{"amount":4200}`),
	}
	second := first
	second.Ref, second.RunID, second.RoutingKey, second.Attempt, second.Seq = 7<<40|43, "order-1002", "order-1002", 1, 119
	second.Trace = ""
	return []*Task{&first, &second}
}

func exampleResults() (failed, succeeded *Result) {
	failed = &Result{
		TaskID: exampleTasks()[0].TaskID, RunID: "order-1001", StepName: "pay", Shard: 7, Worker: exampleWorker, Owner: exampleOwner, Seq: 55,
		Outcome: OutcomeFailed, Code: "card_declined", Message: "the bank declined the card",
		Duration: 8_412 * time.Microsecond, Trace: exampleTrace,
	}
	succeeded = &Result{
		TaskID: exampleTasks()[0].TaskID, RunID: "order-1001", StepName: "pay", Shard: 7, Worker: exampleWorker, Seq: 55,
		Outcome: OutcomeSucceeded, Duration: 8_412 * time.Microsecond, Payload: []byte(`{"charge":"ch_1"}`),
	}
	return failed, succeeded
}

func TestThePageShowsRealHeaders(t *testing.T) {
	text := page(t)
	failed, _ := exampleResults()
	task, result := EncodeTask(Version, "q", exampleTasks()[0]), EncodeResult(Version, "x", failed)
	SetDurable(&task, 54)
	for _, m := range []broker.Message{task, result} {
		for key, value := range m.Headers {
			kind := map[string]string{"string": "string", "int64": "integer", "bool": "boolean"}[reflect.TypeOf(value).String()]
			if row := fmt.Sprintf("| `%s` | %s | `%v` |", key, kind, value); !strings.Contains(text, row) {
				t.Errorf("the worked example lacks the row\n%s", row)
			}
		}
		for _, s := range []string{m.AppID, m.CorrelationID, m.Type, m.ContentType, string(m.Body)} {
			if s != "" && !strings.Contains(text, "`"+s+"`") {
				t.Errorf("the worked example lacks `%s`", s)
			}
		}
	}
}

func TestThePageListsTheFeaturesOfVersions(t *testing.T) {
	text := page(t)
	for _, f := range Features() {
		if row := fmt.Sprintf("\n| %s | %d | %s |\n", f.Name, f.Since, f.Older); !strings.Contains(text, row) {
			t.Errorf("the section on versions lacks the row%s", row)
		}
	}
	for _, s := range []string{fmt.Sprintf("Protocol version: **%d**", Version), fmt.Sprintf("its own version, **%d**, and the one\nbefore, %d", Version, MinVersion)} {
		if !strings.Contains(text, s) {
			t.Errorf("the page does not say %q", s)
		}
	}
}

// blocks are the fenced blocks of a language, in order.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	var found []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(page(t), -1) {
		found = append(found, m[1])
	}
	return found
}

// A line of a dump is bytes in hex, then what they are after "  ".
func TestThePageShowsRealBatches(t *testing.T) {
	_, succeeded := exampleResults()
	want := [][]byte{
		EncodeTasks(Version, "q", exampleOwner, 54, exampleTasks()).Body,
		EncodeResults(Version, "x", []*Result{succeeded}).Body,
	}
	got := blocks(t, "hex")
	if len(got) != len(want) {
		t.Fatalf("the page has %d dumps, want %d", len(got), len(want))
	}
	for i := range want {
		var digits strings.Builder
		for line := range strings.Lines(got[i]) {
			bytes, _, _ := strings.Cut(line, "  ")
			digits.WriteString(strings.Join(strings.Fields(bytes), ""))
		}
		if digits.String() != hex.EncodeToString(want[i]) {
			t.Errorf("dump %d is not what the code writes:\n%s", i, hex.Dump(want[i]))
		}
	}
}

func TestThePageShowsJSONThatIsAccepted(t *testing.T) {
	got := blocks(t, "json")
	if len(got) != 3 {
		t.Fatalf("the page has %d JSON examples, want a heartbeat, an announcement and a control", len(got))
	}
	msg := func(k Kind, i int) *broker.Message {
		return &broker.Message{Type: string(k), Headers: versionHeader(Version), Body: []byte(got[i])}
	}
	h, err := DecodeHeartbeat(msg(KindHeartbeat, 0))
	if err != nil || h.Worker != exampleWorker || h.Running[0].TaskID != exampleTasks()[0].TaskID {
		t.Errorf("heartbeat: %v", err)
	}
	if _, err := DecodeAnnouncement(msg(KindAnnouncement, 1)); err != nil {
		t.Error(err)
	}
	if _, err := DecodeControl(msg(KindControl, 2)); err != nil {
		t.Error(err)
	}
}
