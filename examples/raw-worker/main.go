// Command raw-worker performs tasks with nothing but an AMQP client, as a
// worker in any language would. docs/protocol.md says why it does what it does.
package main

import (
	"crypto/rand"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// perform is the work. Its effect should happen once under key, however often
// it is called. A failure asserts that there was no effect.
func perform(typ, key string, input []byte) (output any, code string) {
	var in struct{ Name string }
	if json.Unmarshal(input, &in) != nil || in.Name == "" {
		return nil, "nameless"
	}
	fmt.Println(typ, key)
	return "hello " + in.Name, ""
}

type attempt struct { // what identifies a task, and how heartbeats list it
	Ref        int64  `json:"ref"`
	Step       int64  `json:"step"`
	Phase      string `json:"phase"`
	Generation int64  `json:"generation"`
	Attempt    int64  `json:"attempt"`
	Shard      int64  `json:"shard"`
}

type result struct {
	attempt
	message amqp.Publishing
	owner   string // whom it is addressed to, under the number seq
	seq     int64
	sent    time.Time
}

const oldest, newest = 1, 2 // protocol versions that this worker speaks

type worker struct {
	id, ns, queue string
	out           *amqp.Channel
	mu            sync.Mutex // guards the rest: a heartbeat is a picture of one moment
	beats         int64
	speaks        map[string]int64    // by owner: the newest version that it and we speak
	received      map[string]int64    // by owner: the highest task number
	numbers       map[string]int64    // by owner: the last result number
	epochs        map[int64]int64     // by shard: the highest heard
	owners        map[int64]string    // by shard: who said it
	running       map[attempt]bool    //
	finished      map[attempt]*result // kept until a watermark covers them
}

func (w *worker) task(d amqp.Delivery) {
	h := d.Headers
	a := attempt{h["rm-ref"].(int64), h["rm-step-index"].(int64), h["rm-phase"].(string), h["rm-generation"].(int64), h["rm-attempt"].(int64), h["rm-shard"].(int64)}
	owner, epoch := h["rm-owner"].(string), h["rm-epoch"].(int64)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.received[owner] = max(w.received[owner], h["rm-seq"].(int64))
	if epoch < w.epochs[a.Shard] {
		return // its owner was replaced
	}
	w.epochs[a.Shard], w.owners[a.Shard] = epoch, owner
	if durable, ok := h["rm-durable"].(int64); ok {
		w.forget(owner, durable)
	}
	if r := w.finished[a]; r != nil {
		w.send(r)
	} else if !w.running[a] {
		w.running[a] = true
		go w.run(a, d)
	}
}

func (w *worker) run(a attempt, d amqp.Delivery) {
	h := amqp.Table{"rm-worker": w.id, "rm-outcome": "succeeded"}
	for _, name := range []string{"rm-ref", "rm-run", "rm-step", "rm-step-index", "rm-phase", "rm-generation", "rm-attempt", "rm-shard", "rm-resent", "traceparent"} {
		if v, ok := d.Headers[name]; ok {
			h[name] = v // said again
		}
	}
	var body []byte
	if end, ok := d.Headers["rm-not-after-ms"].(int64); ok && time.Now().UnixMilli() > end {
		h["rm-outcome"], h["rm-retryable"], h["rm-code"] = "failed", true, "not_after"
	} else if out, code := perform(d.Headers["rm-task-type"].(string), d.Headers["rm-idempotency-key"].(string), d.Body); code != "" {
		h["rm-outcome"], h["rm-code"] = "failed", code // rm-retryable would have it tried again
	} else {
		body, _ = json.Marshal(out)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.running, a)
	r := &result{attempt: a, message: amqp.Publishing{Type: "result", ContentType: "application/json", AppId: w.id, Headers: h, Body: body}}
	w.finished[a] = r
	w.send(r)
}

// send publishes a result, under its number, or under a new one if its shard
// has another owner by now.
func (w *worker) send(r *result) {
	if owner := w.owners[r.Shard]; owner != r.owner {
		w.numbers[owner]++
		r.owner, r.seq = owner, w.numbers[owner]
	}
	r.sent = time.Now()
	r.message.Headers["rm-owner"], r.message.Headers["rm-seq"] = r.owner, r.seq
	r.message.Headers["rm-version"] = max(w.speaks[r.owner], oldest)
	must(w.out.Publish(w.ns+".results", fmt.Sprintf("shard.%d", r.Shard), true, false, r.message))
}

// forget takes in that an owner has what is numbered up to durable on disk.
func (w *worker) forget(owner string, durable int64) {
	for a, r := range w.finished {
		if r.owner == owner && r.seq <= durable {
			delete(w.finished, a)
		}
	}
}

func (w *worker) announcement(d amqp.Delivery) {
	var m struct {
		Version      int64
		MaxVersion   int64 `json:"max_version"`
		Orchestrator string
		Hello        bool
		Shards       map[int64]int64
		Durable      map[string]int64
	}
	must(json.Unmarshal(d.Body, &m))
	m.MaxVersion = max(m.MaxVersion, m.Version) // it may be left out
	if m.Version > newest || m.MaxVersion < oldest {
		log.Printf("orchestrator %s speaks protocol version %d to %d, this worker %d to %d", m.Orchestrator, m.Version, m.MaxVersion, oldest, newest)
		return // it will send no tasks
	}
	w.mu.Lock()
	w.speaks[m.Orchestrator] = min(m.MaxVersion, newest)
	for shard, epoch := range m.Shards {
		if epoch >= w.epochs[shard] {
			w.epochs[shard], w.owners[shard] = epoch, m.Orchestrator
		}
	}
	w.forget(m.Orchestrator, m.Durable[w.id])
	for _, r := range w.finished {
		if m.Hello && w.owners[r.Shard] == m.Orchestrator {
			w.send(r)
		}
	}
	w.mu.Unlock()
	if m.Hello {
		w.heartbeat()
	}
}

func (w *worker) heartbeat() {
	w.mu.Lock()
	defer w.mu.Unlock()
	running, finished, floor := []attempt{}, []attempt{}, map[string]int64{}
	for a := range w.running {
		running = append(running, a)
	}
	for a, r := range w.finished {
		finished = append(finished, a)
		if time.Since(r.sent) > 5*time.Second { // no word about it
			w.send(r)
		}
	}
	for owner, n := range w.numbers {
		floor[owner] = n + 1 // all results for it are durable, or at another owner
	}
	for _, r := range w.finished {
		floor[r.owner] = min(floor[r.owner], r.seq)
	}
	w.beats++
	body, err := json.Marshal(map[string]any{
		"version": oldest, "max_version": newest, "worker": w.id, "name": "raw-1", "queue": w.queue, "service": "raw", "task_types": []string{"greet"},
		"capacity": 16, "credit": 16, "weight": 100, "interval_ms": 1000, "sequence": w.beats,
		"received": w.received, "floor": floor, "queued": []attempt{}, "running": running, "finished": finished,
	})
	must(err)
	must(w.out.Publish(w.ns+".heartbeats", "", false, false, amqp.Publishing{Type: "heartbeat", ContentType: "application/json", AppId: w.id, Headers: amqp.Table{"rm-version": int64(oldest)}, Body: body}))
}

func main() {
	url := flag.String("amqp", "amqp://guest:guest@127.0.0.1:5672/", "RabbitMQ")
	ns := flag.String("namespace", "ringmaster", "as on the orchestrator")
	flag.Parse()
	w := &worker{id: "raw-1-" + strings.ToLower(rand.Text()), ns: *ns, speaks: map[string]int64{}, received: map[string]int64{}, numbers: map[string]int64{},
		epochs: map[int64]int64{}, owners: map[int64]string{}, running: map[attempt]bool{}, finished: map[attempt]*result{}}
	in, out := channel(*url), channel(*url) // a connection each: a blocked publisher must not stop deliveries
	w.out = out
	for name, kind := range map[string]string{".heartbeats": "fanout", ".announcements": "fanout", ".results": "direct"} {
		must(in.ExchangeDeclare(*ns+name, kind, true, false, false, false, nil))
	}
	w.queue = *ns + ".worker." + w.id + "." + strings.ToLower(rand.Text())
	news := *ns + ".worker." + w.id + ".announcements." + strings.ToLower(rand.Text())
	tasks, announcements := consume(in, w.queue, ""), consume(in, news, *ns+".announcements")
	tick := time.Tick(time.Second)
	for w.heartbeat(); ; {
		select {
		case d, ok := <-tasks:
			if d.Type == "task" { // a control may be ignored
				w.task(d)
			} else if !ok {
				log.Fatal("the connection is lost") // be started again, as a new incarnation
			}
		case d, ok := <-announcements:
			if ok {
				w.announcement(d)
			}
		case <-tick:
			w.heartbeat()
		}
	}
}

func channel(url string) *amqp.Channel {
	connection, err := amqp.Dial(url)
	must(err)
	ch, err := connection.Channel()
	must(err)
	return ch
}

func consume(ch *amqp.Channel, queue, exchange string) <-chan amqp.Delivery {
	_, err := ch.QueueDeclare(queue, false, true, true, false, nil)
	must(err)
	if exchange != "" {
		must(ch.QueueBind(queue, "", exchange, false, nil))
	}
	deliveries, err := ch.Consume(queue, "", true, true, false, false, nil)
	must(err)
	return deliveries
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
