package definitions_test

import (
	"testing"

	"github.com/ringmaster-dev/ringmaster/definitions"
)

const benchInput = `{"id":"ord-20260514-000123","customer_id":"c-88412","total":129.95,"currency":"EUR",` +
	`"items":[{"sku":"A-100","quantity":2,"price":39.95},{"sku":"B-7","quantity":1,"price":50.05}],` +
	`"address":{"street":"Main Street 5","city":"Springfield","zip":"12345"},"express":false}`

func benchWorkflow(b testing.TB) *definitions.Workflow {
	s := definitions.Saga("order-flow").Service("orders").RoutingKey("input.customer_id").
		Output("{'order': steps.create.output.id}")
	s.Step("create").Action("orders.create").Compensation("orders.cancel")
	s.Step("pay").Service("payments").Action("payments.charge").Compensation("payments.refund").
		When("input.total > 0").
		Input("{'order': steps.create.output.id, 'amount': input.total, 'currency': input.currency}")
	s.Step("deliver").Service("deliveries").Action("deliveries.ship").Pivot()
	wf, err := s.Build()
	if err != nil {
		b.Fatal(err)
	}
	return wf
}

// A whole run's worth of expressions: routing key, condition, input, output.
func BenchmarkScopeRun(b *testing.B) {
	wf := benchWorkflow(b)
	input, output := []byte(benchInput), []byte(`{"id":"o-1","created":true}`)
	b.ReportAllocs()
	for b.Loop() {
		sc := wf.NewScope(input)
		if _, err := sc.RoutingKey(); err != nil {
			b.Fatal(err)
		}
		sc.SetOutput(0, output)
		if _, err := sc.When(1); err != nil {
			b.Fatal(err)
		}
		if _, err := sc.Input(1); err != nil {
			b.Fatal(err)
		}
		if _, err := sc.Output(); err != nil {
			b.Fatal(err)
		}
	}
}

// The parts of it.
func BenchmarkScope(b *testing.B) {
	wf := benchWorkflow(b)
	sc := wf.NewScope([]byte(benchInput))
	sc.SetOutput(0, []byte(`{"id":"o-1","created":true}`))
	for _, part := range []struct {
		name string
		f    func() error
	}{
		{"RoutingKey", func() error { _, err := sc.RoutingKey(); return err }},
		{"When", func() error { _, err := sc.When(1); return err }},
		{"Input", func() error { _, err := sc.Input(1); return err }},
		{"Output", func() error { _, err := sc.Output(); return err }},
		{"DecodeAndRoutingKey", func() error { _, err := wf.EvalRoutingKey([]byte(benchInput)); return err }},
	} {
		b.Run(part.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := part.f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A workflow without expressions decodes nothing.
func BenchmarkScopeUnused(b *testing.B) {
	s := definitions.Saga("plain").Service("orders")
	s.Step("create").Action("orders.create").Compensation("orders.cancel")
	wf := s.MustBuild()
	input, output := []byte(benchInput), []byte(`{"id":"o-1"}`)
	b.ReportAllocs()
	for b.Loop() {
		sc := wf.NewScope(input)
		sc.SetOutput(0, output)
		if ok, err := sc.When(0); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	data := benchWorkflow(b).JSON()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := definitions.Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}
