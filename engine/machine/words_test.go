package machine

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

func TestEveryCodeOfTheCoreIsSaidInWords(t *testing.T) {
	codes := []string{LostWorkerDied.code(), LostTimeout.code(), LostVanished.code()}
	f, err := parser.ParseFile(token.NewFileSet(), "event.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Code") && len(v.Values) == 1 {
			if text, ok := v.Values[0].(*ast.BasicLit); ok {
				code, _ := strconv.Unquote(text.Value)
				codes = append(codes, code)
			}
		}
		return true
	})
	if len(codes) < 16 {
		t.Fatalf("only %d codes were found", len(codes))
	}
	for _, code := range codes {
		if Message(code, "") == "" {
			t.Errorf("%s: there are no words for it", code)
		}
	}
	if got := Message("vanished", "what the worker said"); got != "what the worker said" {
		t.Errorf("a message of its own is replaced: %q", got)
	}
}
