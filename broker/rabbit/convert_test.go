package rabbit

import (
	"reflect"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

func TestHeadersOfOtherLanguagesAreBroughtToKnownTypes(t *testing.T) {
	got := normalize(amqp.Table{
		"string": "s", "bool": true, "bytes": []byte{1}, "int64": int64(1),
		"int8": int8(-1), "byte": byte(255), "int16": int16(-2), "uint16": uint16(2),
		"int32": int32(-3), "uint32": uint32(3), "int": 4, "uint64": uint64(5),
		"float": 1.5, "time": time.Unix(0, 0), "nil": nil,
		"table": amqp.Table{"x": "y"}, "list": []any{"x"}, returnHeader: int64(9),
	})
	want := map[string]any{
		"string": "s", "bool": true, "bytes": []byte{1}, "int64": int64(1),
		"int8": int64(-1), "byte": int64(255), "int16": int64(-2), "uint16": int64(2),
		"int32": int64(-3), "uint32": int64(3), "int": int64(4), "uint64": int64(5),
		"float": "1.5", "time": "1970-01-01T00:00:00Z",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got := normalize(amqp.Table{"nil": nil}); got != nil {
		t.Errorf("headers without any are %v", got)
	}
}
