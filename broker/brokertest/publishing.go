package brokertest

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/ringmaster-dev/ringmaster/broker"
)

// behaviours are those that need no fault.
var behaviours = []behaviour{
	{"messages of one publisher arrive in order", order},
	{"a message arrives as it was published", fidelity},
	{"a fanout reaches every queue once", fanout},
	{"a direct exchange follows keys", direct},
	{"a mandatory message without a queue comes back", returns},
	{"a queue that vanished with its consumer sends mandatory messages back", deadConsumer},
	{"a confirmed publish tells routable from unroutable", confirmed},
	{"an exchange of another kind is refused with an explanation", conflict},
	{"a publish to an exchange that does not exist disturbs nothing", missingExchange},
	{"a message that breaks a rule is refused before anything is sent", invalid},
	{"a subscription that breaks a rule is refused", invalidSubscription},
	{"shared messages go to one consumer each", competing},
	{"unsettled messages are delivered again", redelivery},
	{"settling in any order, and twice, settles once", settleOrder},
	{"the prefetch bounds unsettled deliveries", prefetch},
	{"a slow handler loses and reorders nothing", slowHandler},
	{"no-ack deliveries need no settling", noAck},
	{"ten thousand messages in flight", tenThousand},
	{"stopping waits for the handler", stopWaits},
	{"closing while busy", closeBusy},
	{"a running subscription follows its bindings", rebinding},
	{"a running subscription is bound to a fanout and no more", rebindingFanout},
	{"a thousand keys are bound at once", manyBindings},
	{"bindings change side by side", concurrentBindings},
	{"what is queued outlives its binding", unboundQueue},
	{"a refused binding is not remembered and disturbs nothing", refusedBinding},
}

func order(f *fixture) {
	c := f.open(broker.Options{})
	in := f.subscribe(c, broker.Subscription{Queue: f.name("q")}, true)
	q := in.queue()
	const n = 3000
	var want []string
	for i := 0; i < n; {
		var batch []broker.Message
		for range 1 + i%7 {
			want = append(want, fmt.Sprint(i))
			batch = append(batch, to(q, fmt.Sprint(i)))
			i++
		}
		f.publish(c, batch...)
	}
	if got := bodies(in.take(len(want))); !slices.Equal(got, want) {
		f.Errorf("arrived in another order")
	}
}

func fidelity(f *fixture) {
	c := f.open(broker.Options{})
	x := broker.Exchange{Name: f.name("x"), Kind: broker.Direct}
	in := f.subscribe(c, broker.Subscription{
		Queue: f.name("q"), Bindings: []broker.Binding{{Exchange: x, Keys: []string{"k"}}},
	}, true)
	want := broker.Message{
		Exchange: x.Name, Key: "k", Persistent: true,
		ID: "id", CorrelationID: "correlation", Type: "type", ContentType: "text/plain", AppID: "app",
		Headers: map[string]any{"s": "text", "i": int64(-7), "b": true, "y": []byte{0, 255}},
		Body:    []byte(strings.Repeat("ü\x00", 200_000)),
	}
	sent := want
	sent.Body = slices.Clone(want.Body)
	f.publish(c, sent)
	clear(sent.Body) // what was handed over is the broker's own copy
	confirmed := want
	confirmed.Mandatory = true
	f.confirm(c, confirmed)
	bare := broker.Message{Exchange: x.Name, Key: "k"}
	f.publish(c, bare)
	ds := in.take(3)
	for _, d := range ds[:2] {
		same(f, d.Message, want)
	}
	same(f, ds[2].Message, bare)
}

func same(f *fixture, got, want broker.Message) {
	f.Helper()
	equal := maps.EqualFunc(got.Headers, want.Headers, func(a, b any) bool {
		if x, ok := a.([]byte); ok {
			y, ok := b.([]byte)
			return ok && slices.Equal(x, y)
		}
		return a == b
	})
	if !equal {
		f.Errorf("headers: got %v, want %v", got.Headers, want.Headers)
	}
	if !slices.Equal(got.Body, want.Body) {
		f.Errorf("the body differs (%d bytes, want %d)", len(got.Body), len(want.Body))
	}
	got.Headers, want.Headers, got.Body, want.Body = nil, nil, nil, nil
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		f.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func fanout(f *fixture) {
	a, b := f.open(broker.Options{}), f.open(broker.Options{})
	x := broker.Exchange{Name: f.name("x"), Kind: broker.Fanout}
	sub := broker.Subscription{Queue: f.name("q"), NoAck: true, Bindings: []broker.Binding{{Exchange: x}}}
	ins := []*inbox{f.subscribe(a, sub, true), f.subscribe(b, sub, true), f.subscribe(b, sub, true)}
	names := map[string]bool{}
	for _, in := range ins {
		names[in.queue()] = true
	}
	if len(names) != len(ins) {
		f.Errorf("exclusive queues share names: %v", names)
	}
	const n = 100
	for i := range n {
		f.publish(a, broker.Message{Exchange: x.Name, Key: "any", Body: fmt.Append(nil, i)})
	}
	for _, in := range ins {
		in.take(n)
		in.empty()
	}
}

func direct(f *fixture) {
	c := f.open(broker.Options{})
	x := broker.Exchange{Name: f.name("x"), Kind: broker.Direct}
	y := broker.Exchange{Name: f.name("y"), Kind: broker.Fanout}
	bind := func(keys ...string) broker.Binding { return broker.Binding{Exchange: x, Keys: keys} }
	one := f.subscribe(c, broker.Subscription{Queue: f.name("one"), Bindings: []broker.Binding{bind("a", "b")}}, true)
	two := f.subscribe(c, broker.Subscription{Queue: f.name("two"), Bindings: []broker.Binding{bind("b"), bind("b", "c"), {Exchange: y}}}, true)
	for _, k := range []string{"a", "b", "c", "d"} {
		f.publish(c, broker.Message{Exchange: x.Name, Key: k, Body: []byte(k)})
	}
	f.publish(c, broker.Message{Exchange: y.Name, Key: "z", Body: []byte("y")})
	f.publish(c, broker.Message{Exchange: x.Name, Key: "a", Body: []byte("end")})
	f.publish(c, broker.Message{Exchange: x.Name, Key: "c", Body: []byte("end")})
	if got := bodies(one.take(3)); !slices.Equal(got, []string{"a", "b", "end"}) {
		f.Errorf("queue one got %v", got)
	}
	if got := bodies(two.take(4)); !slices.Equal(got, []string{"b", "c", "y", "end"}) {
		f.Errorf("queue two got %v", got)
	}
}

func returns(f *fixture) {
	back := make(chan broker.Message, 1000)
	c := f.open(broker.Options{OnReturn: func(m broker.Message) { back <- m }})
	in := f.subscribe(c, broker.Subscription{Queue: f.name("q")}, true)
	q := in.queue()
	x := broker.Exchange{Name: f.name("x"), Kind: broker.Direct}
	if err := c.Declare(f.ctx, []broker.Exchange{x}, nil); err != nil {
		f.Fatal(err)
	}
	lost := broker.Message{
		Exchange: x.Name, Key: "nobody", Mandatory: true, ID: "7", CorrelationID: "c", Type: "t",
		ContentType: "x/y", AppID: "me", Headers: map[string]any{"h": int64(1)}, Body: []byte("lost"),
	}
	nowhere := to(f.name("nowhere"), "to no queue")
	nowhere.Mandatory = true
	there := to(q, "there")
	there.Mandatory = true
	f.publish(c, there, lost, to(f.name("nowhere"), "not mandatory"), nowhere, there)
	same(f, receive(f, back, "the first return"), lost)
	same(f, receive(f, back, "the second return"), nowhere)
	in.take(2)
	select {
	case m := <-back:
		f.Errorf("also came back: %+v", m)
	default:
	}
}

func deadConsumer(f *fixture) {
	back := make(chan broker.Message, 10)
	a := f.open(broker.Options{OnReturn: func(m broker.Message) { back <- m }})
	for name, end := range map[string]func(broker.Conn, *inbox) error{
		"stopped": func(_ broker.Conn, in *inbox) error { return in.consumer.Stop(f.ctx) },
		"closed":  func(c broker.Conn, _ *inbox) error { return c.Close(f.ctx) },
	} {
		b := f.open(broker.Options{})
		in := f.subscribe(b, broker.Subscription{Queue: f.name("q")}, true)
		m := to(in.queue(), name)
		m.Mandatory = true
		f.publish(a, m)
		in.take(1)
		if err := end(b, in); err != nil {
			f.Fatal(err)
		}
		f.publish(a, m)
		if got := receive(f, back, "the return"); string(got.Body) != name {
			f.Errorf("%s came back as %q", name, got.Body)
		}
	}
}

func confirmed(f *fixture) {
	c := f.open(broker.Options{OnReturn: func(m broker.Message) { f.Errorf("%q went to OnReturn", m.Body) }})
	in := f.subscribe(c, broker.Subscription{Queue: f.name("q")}, true)
	q := in.queue()
	nowhere := to(f.name("nowhere"), "x")
	f.confirm(c, nowhere) // not mandatory: the broker has done all it should
	const n = 300
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		m := to(q, "x")
		if i%2 == 1 {
			m = nowhere
		}
		m.Mandatory = true
		m.ID = "the same for all"
		wg.Go(func() { errs[i] = c.PublishConfirmed(f.ctx, m) })
	}
	wg.Wait()
	for i, err := range errs {
		if i%2 == 0 && err != nil {
			f.Errorf("routable message %d: %v", i, err)
		}
		if i%2 == 1 && !errors.Is(err, broker.ErrUnroutable) {
			f.Errorf("unroutable message %d: %v", i, err)
		}
	}
	in.take(n / 2)
	shared := f.name("shared")
	if err := c.Declare(f.ctx, nil, []string{shared}); err != nil {
		f.Fatal(err)
	}
	m := to(shared, "kept")
	m.Mandatory, m.Persistent = true, true
	f.confirm(c, m)
	if got := f.subscribe(c, broker.Subscription{Queue: shared, Kind: broker.Shared}, true).take(1); string(got[0].Body) != "kept" {
		f.Errorf("the shared queue gave %q", got[0].Body)
	}
}

func conflict(f *fixture) {
	c := f.open(broker.Options{})
	x := broker.Exchange{Name: f.name("x"), Kind: broker.Direct}
	for range 2 {
		if err := c.Declare(f.ctx, []broker.Exchange{x}, []string{f.name("shared")}); err != nil {
			f.Fatalf("declaring: %v", err)
		}
	}
	x.Kind = broker.Fanout
	err := c.Declare(f.ctx, []broker.Exchange{x}, nil)
	if err == nil || !strings.Contains(err.Error(), x.Name) || !strings.Contains(err.Error(), "delete it") {
		f.Errorf("declaring with another kind: %v", err)
	}
	_, err = c.Subscribe(f.ctx, broker.Subscription{
		Queue: f.name("q"), Kind: broker.Exclusive,
		Bindings: []broker.Binding{{Exchange: x}}, Handler: func(broker.Delivery) {},
	})
	if err == nil || !strings.Contains(err.Error(), x.Name) {
		f.Errorf("subscribing with another kind: %v", err)
	}
	in := f.subscribe(c, broker.Subscription{Queue: f.name("q")}, true)
	f.publish(c, to(in.queue(), "still works"))
	in.take(1)
}

func missingExchange(f *fixture) {
	c := f.open(broker.Options{})
	in := f.subscribe(c, broker.Subscription{Queue: f.name("q")}, true)
	q := in.queue()
	lost := broker.Message{Exchange: f.name("missing"), Key: "k"}
	for range 3 {
		if err := c.Publish(f.ctx, lost); err != nil {
			f.Errorf("publishing to a missing exchange: %v", err)
		}
		if err := c.PublishConfirmed(f.ctx, lost); !errors.Is(err, broker.ErrUnconfirmed) {
			f.Errorf("publishing, confirmed, to a missing exchange: %v", err)
		}
		f.confirm(c, to(q, "confirmed"))
		in.take(1)
		// A plain publish that closely follows the bad one may be lost with
		// it; later ones are not.
		for arrived := false; !arrived; {
			f.publish(c, to(q, "plain"))
			f.confirm(c, to(q, "fence"))
			for body := ""; body != "fence"; {
				body = string(in.take(1)[0].Body)
				arrived = arrived || body == "plain"
			}
		}
	}
}

func invalid(f *fixture) {
	c := f.open(broker.Options{})
	in := f.subscribe(c, broker.Subscription{Queue: f.name("q")}, true)
	q := in.queue()
	long := strings.Repeat("x", broker.MaxName+1)
	for name, m := range map[string]broker.Message{
		"Exchange": {Exchange: long}, "Key": {Key: long}, "ID": {Key: q, ID: long},
		"CorrelationID": {Key: q, CorrelationID: long}, "Type": {Key: q, Type: long},
		"ContentType": {Key: q, ContentType: long}, "AppID": {Key: q, AppID: long},
		"Headers": {Key: q, Headers: map[string]any{long: "v"}},
		"number":  {Key: q, Headers: map[string]any{"number": 1.5}},
	} {
		for _, err := range []error{c.Publish(f.ctx, to(q, "good"), m), c.PublishConfirmed(f.ctx, m)} {
			if !errors.Is(err, broker.ErrInvalid) || !strings.Contains(err.Error(), name) {
				f.Errorf("%s: %v", name, err)
			}
		}
	}
	longest := broker.Message{Key: q, ID: long[1:], Headers: map[string]any{long[1:]: long}}
	f.confirm(c, longest)
	if got := in.take(1); got[0].ID != long[1:] {
		f.Errorf("got %+v before the message that keeps the rules", got[0].Message)
	}
}

func invalidSubscription(f *fixture) {
	c := f.open(broker.Options{})
	ok := func(broker.Delivery) {}
	for name, s := range map[string]broker.Subscription{
		"Handler":  {Queue: "q", Kind: broker.Exclusive},
		"Queue":    {Kind: broker.Exclusive, Handler: ok},
		"Kind":     {Queue: "q", Handler: ok},
		"Prefetch": {Queue: "q", Kind: broker.Shared, Prefetch: -1, Handler: ok},
		"kind":     {Queue: "q", Kind: broker.Exclusive, Handler: ok, Bindings: []broker.Binding{{Exchange: broker.Exchange{Name: "x", Kind: "topic"}}}},
		"name":     {Queue: "q", Kind: broker.Exclusive, Handler: ok, Bindings: []broker.Binding{{Exchange: broker.Exchange{Kind: broker.Direct}}}},
	} {
		if _, err := c.Subscribe(f.ctx, s); !errors.Is(err, broker.ErrInvalid) || !strings.Contains(err.Error(), name) {
			f.Errorf("%s: %v", name, err)
		}
	}
}
