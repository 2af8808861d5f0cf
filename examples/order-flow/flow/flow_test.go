package flow

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
)

// strictly decodes without letting a misspelt field pass.
func strictly[T any](t *testing.T, data []byte, err error) (v T) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%s is no %T: %v", data, v, err)
	}
	return v
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func expect(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestEveryStepGetsWhatItsTaskTakes evaluates the expressions of the workflow
// as the engine does, against the types of the tasks.
func TestEveryStepGetsWhatItsTaskTakes(t *testing.T) {
	home := Address{Street: "Rämistrasse 7", Postcode: "8001", City: "Zürich", Country: "CH"}
	order := Order{
		ID: "SO-1", Currency: "CHF", Card: "card_1", Address: home,
		Customer: Customer{ID: "C-1", Name: "Flurina Bänziger", Email: "f@example.org"},
		Lines:    []Line{{SKU: "TEA", Quantity: 2, UnitPrice: 1415}, {SKU: "CUP", Quantity: 1, UnitPrice: 3990}},
	}
	input := encode(t, order)
	key, err := OrderFlow.EvalRoutingKey(input)
	if err != nil || key != "C-1" {
		t.Errorf("routing key %q, %v; want C-1", key, err)
	}
	scope := OrderFlow.NewScope(input)
	step := OrderFlow.StepIndex

	scope.SetOutput(step("create"), encode(t, Placed{Total: order.Total(), Pieces: order.Pieces()}))
	data, err := scope.Input(step("pay"))
	expect(t, strictly[Payment](t, data, err), Payment{Order: "SO-1", Card: "card_1", Currency: "CHF", Amount: 6820})

	scope.SetOutput(step("pay"), encode(t, Charged{Authorization: "A1"}))
	data, err = scope.Input(step("deliver"))
	expect(t, strictly[Parcel](t, data, err), Parcel{Order: "SO-1", Name: "Flurina Bänziger", Address: home, Pieces: 3})

	scope.SetOutput(step("deliver"), encode(t, Shipped{Carrier: "Die Post", Tracking: "CP1"}))
	data, err = scope.Input(step("notify"))
	expect(t, strictly[Notice](t, data, err), Notice{Order: "SO-1", Email: "f@example.org", Tracking: "CP1"})

	data, err = scope.Output()
	expect(t, strictly[Receipt](t, data, err), Receipt{Order: "SO-1", Currency: "CHF", Total: 6820, Tracking: "CP1"})
}

func TestOnlyWhatComesBeforeDeliveryIsUndone(t *testing.T) {
	for name, want := range map[string]string{"create": "orders.cancel", "pay": "payments.refund", "deliver": "", "notify": ""} {
		if got := OrderFlow.Step(OrderFlow.StepIndex(name)).Compensation; got != want {
			t.Errorf("step %s is undone by %q, want %q", name, got, want)
		}
	}
	if OrderFlow.PivotIndex() != OrderFlow.StepIndex("deliver") {
		t.Error("the pivot is not deliver")
	}
}
