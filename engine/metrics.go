package engine

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringmaster-dev/ringmaster/definitions"
	"github.com/ringmaster-dev/ringmaster/engine/machine"
	"github.com/ringmaster-dev/ringmaster/protocol"
	"github.com/ringmaster-dev/ringmaster/store"
)

// metrics are what the engine counts. Label sets are bounded: workflows, task
// types and services, never runs or workers. docs/metrics.md explains each.
type metrics struct {
	runs        *prometheus.GaugeVec   // by workflow, status
	runsTotal   *prometheus.CounterVec // by workflow, status
	runSeconds  *prometheus.HistogramVec
	events      *prometheus.CounterVec // by workflow, kind
	stepSeconds *prometheus.HistogramVec
	results     *prometheus.CounterVec

	lockWait       prometheus.Histogram
	commitSeconds  prometheus.Histogram
	commitRecords  prometheus.Histogram
	durableSeconds prometheus.Histogram
	taskBatch      prometheus.Histogram
	resultBatch    prometheus.Histogram
	sentTasks      prometheus.Counter
	moved          prometheus.Counter
	lost           *prometheus.CounterVec
	poison         prometheus.Counter
	shed           *prometheus.CounterVec
	storeErrors    prometheus.Counter
	ringRebuilds   prometheus.Counter
	conflicts      prometheus.Counter
	unreadable     prometheus.Counter
	rivals         prometheus.Counter
	presumed       prometheus.Counter
	takeovers      prometheus.Counter
	leasesLost     prometheus.Counter
	letters        prometheus.Counter
	removed        prometheus.Counter
	forgotten      prometheus.Counter
	incompatible   *prometheus.CounterVec

	all []prometheus.Collector
}

// register has a registry show the metrics, until the function returned is
// called.
func (m *metrics) register(reg prometheus.Registerer) (unregister func(), err error) {
	if reg == nil {
		return func() {}, nil
	}
	done := 0
	unregister = func() {
		for _, c := range m.all[:done] {
			reg.Unregister(c)
		}
	}
	for _, c := range m.all {
		if err := reg.Register(c); err != nil {
			unregister()
			return nil, fmt.Errorf("register metrics: %w", err)
		}
		done++
	}
	return unregister, nil
}

var (
	// From 100 µs to 26 s, and from 1 ms to 27 h.
	fastBuckets = prometheus.ExponentialBuckets(0.0001, 4, 10)
	slowBuckets = prometheus.ExponentialBuckets(0.001, 5, 12)
	sizeBuckets = prometheus.ExponentialBuckets(1, 4, 8)
)

func newMetrics(e *Engine) *metrics {
	m := &metrics{
		runs:        prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "ringmaster_runs", Help: "Runs that have not ended, by workflow and status."}, []string{"workflow", "status"}),
		runsTotal:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ringmaster_runs_total", Help: "Runs that came to a status, by workflow and status."}, []string{"workflow", "status"}),
		runSeconds:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ringmaster_run_duration_seconds", Help: "From a run's start to its end.", Buckets: slowBuckets}, []string{"workflow", "status"}),
		events:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ringmaster_events_total", Help: "Events decided, by workflow and kind."}, []string{"workflow", "kind"}),
		stepSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ringmaster_task_duration_seconds", Help: "How long handlers ran, as their workers say.", Buckets: slowBuckets}, []string{"phase", "outcome"}),
		results:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ringmaster_results_total", Help: "Answers of workers."}, []string{"phase", "outcome"}),

		lockWait:       prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ringmaster_lock_wait_seconds", Help: "From a run's request for a named lock until it holds it.", Buckets: slowBuckets}),
		commitSeconds:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ringmaster_commit_duration_seconds", Help: "One transaction of the store.", Buckets: fastBuckets}),
		commitRecords:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ringmaster_commit_records", Help: "History records in one transaction.", Buckets: sizeBuckets}),
		durableSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ringmaster_durable_seconds", Help: "From a decision to its effects: the wait for the commit, and the commit.", Buckets: fastBuckets}),
		taskBatch:      prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ringmaster_task_batch", Help: "Tasks sent to one worker in one go.", Buckets: sizeBuckets}),
		resultBatch:    prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ringmaster_result_batch", Help: "Results in one message.", Buckets: sizeBuckets}),
		sentTasks:      prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_tasks_sent_total", Help: "Tasks published to workers."}),
		moved:          prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_tasks_moved_total", Help: "Tasks given to another worker before they were started."}),
		lost:           prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ringmaster_tasks_lost_total", Help: "Attempts that will not answer, by reason."}, []string{"reason"}),
		poison:         prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_poison_messages_total", Help: "Messages that could not be understood; they are in the dead letters queue."}),
		shed:           prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ringmaster_starts_shed_total", Help: "Starts refused at a limit."}, []string{"limit"}),
		storeErrors:    prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_store_errors_total", Help: "Commits that failed, or parts of one."}),
		conflicts:      prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_worker_conflicts_total", Help: "Workers refused because another has their identity."}),
		rivals:         prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_rivals_total", Help: "Other orchestrators heard that own the same shards under the same namespace."}),
		unreadable:     prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_runs_unreadable_total", Help: "Runs found that cannot be folded, and are left alone."}),
		presumed:       prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_presumed_aborts_total", Help: "Decisions asked for of runs that there are not, and answered with aborted."}),
		takeovers:      prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_shard_takeovers_total", Help: "Shards that this orchestrator has become the owner of, where several share them."}),
		leasesLost:     prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_shards_lost_total", Help: "Shards that were lost, not given away: their lease ran out or was taken, or all were, with the session."}),
		letters:        prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_letters_total", Help: "What shards here told shards of other orchestrators: about locks and child runs."}),
		removed:        prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_runs_removed_total", Help: "Ended runs that were removed because of their age."}),
		forgotten:      prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_tombstones_removed_total", Help: "Ids of removed runs that are no longer known."}),
		incompatible:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ringmaster_incompatible_total", Help: "Workers and orchestrators heard that speak no protocol version of this orchestrator, by side."}, []string{"side"}),
		ringRebuilds:   prometheus.NewCounter(prometheus.CounterOpts{Name: "ringmaster_ring_rebuilds_total", Help: "Changes of the workers that make up rings."}),
	}
	m.all = []prometheus.Collector{m.runs, m.runsTotal, m.runSeconds, m.events, m.stepSeconds, m.results,
		m.lockWait, m.commitSeconds, m.commitRecords, m.durableSeconds, m.taskBatch, m.resultBatch, m.sentTasks,
		m.moved, m.lost, m.poison, m.shed, m.storeErrors, m.ringRebuilds, m.conflicts, m.unreadable, m.rivals, m.presumed, m.takeovers, m.leasesLost, m.letters,
		m.incompatible, m.removed, m.forgotten, gauges{e}}
	return m
}

// result observes a worker's answer.
func (m *metrics) result(r *protocol.Result) {
	phase, outcome := r.Phase.String(), r.Outcome.String()
	m.results.WithLabelValues(phase, outcome).Inc()
	m.stepSeconds.WithLabelValues(phase, outcome).Observe(r.Duration.Seconds())
}

// workflowSeries are the metrics of one workflow, looked up once.
type workflowSeries struct {
	runs    [store.StatusAborted + 1]prometheus.Gauge
	total   [store.StatusAborted + 1]prometheus.Counter
	seconds [store.StatusAborted + 1]prometheus.Observer
	events  []prometheus.Counter // by kind
}

func (m *metrics) workflow(name string) *workflowSeries {
	s := &workflowSeries{}
	for st := store.StatusRunning; st <= store.StatusAborted; st++ {
		status := machine.Status(st).String()
		s.total[st] = m.runsTotal.WithLabelValues(name, status)
		if st.Final() {
			s.seconds[st] = m.runSeconds.WithLabelValues(name, status)
		} else {
			s.runs[st] = m.runs.WithLabelValues(name, status)
		}
	}
	for k := machine.EventKind(0); k == 0 || k.String() != machine.EventKind(0).String(); k++ {
		if k == 0 {
			s.events = append(s.events, nil)
			continue
		}
		s.events = append(s.events, m.events.WithLabelValues(name, k.String()))
	}
	return s
}

func (s *workflowSeries) ended(r *run, now time.Time) {
	s.seconds[r.row.Status].Observe(now.Sub(r.row.Created).Seconds())
}

func (s *workflowSeries) count(_ *definitions.Workflow, events []machine.Event) {
	for i := range events {
		if k := int(events[i].Kind); k < len(s.events) {
			s.events[k].Inc()
		}
	}
}

// gauges reads what is only worth knowing when somebody asks.
type gauges struct{ e *Engine }

var (
	descWaiting    = prometheus.NewDesc("ringmaster_tasks_waiting", "Tasks that wait in the engine for a worker with credit.", []string{"service", "type"}, nil)
	descNoWorker   = prometheus.NewDesc("ringmaster_tasks_without_worker", "Tasks that wait though no worker that is connected serves them.", []string{"service", "type"}, nil)
	descInFlight   = prometheus.NewDesc("ringmaster_tasks_in_flight", "Tasks at workers.", []string{"service"}, nil)
	descWorkers    = prometheus.NewDesc("ringmaster_workers", "Workers known, by service and state.", []string{"service", "state"}, nil)
	descImbalance  = prometheus.NewDesc("ringmaster_ring_imbalance", "The largest worker's outstanding tasks over the mean of its service.", []string{"service"}, nil)
	descResident   = prometheus.NewDesc("ringmaster_runs_resident", "Runs held in memory.", nil, nil)
	descUnfinished = prometheus.NewDesc("ringmaster_runs_unfinished", "Runs that have not ended.", nil, nil)
	descLocksHeld  = prometheus.NewDesc("ringmaster_locks_held", "Named locks held by runs; of one that is shared, each holder counts.", nil, nil)
	descLocksWait  = prometheus.NewDesc("ringmaster_locks_waiting", "Runs that wait for a named lock.", nil, nil)
	descShards     = prometheus.NewDesc("ringmaster_shards_owned", "Shards that this orchestrator owns.", nil, nil)
	descOldest     = prometheus.NewDesc("ringmaster_oldest_ended_age_seconds", "Since the end of the run that ended first of those that are still there; 0 if there is none.", nil, nil)
	descBroker     = prometheus.NewDesc("ringmaster_broker_connected", "1 while the broker is connected.", nil, nil)
)

func (g gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descWaiting, descNoWorker, descInFlight, descWorkers, descImbalance, descResident, descUnfinished, descLocksHeld, descLocksWait, descShards, descOldest, descBroker} {
		ch <- d
	}
}

func (g gauges) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, q := range g.e.dispatcher.queues() {
		gauge(descWaiting, float64(q.Waiting), q.Service, q.Type)
		without := 0
		if q.Workers == 0 {
			without = q.Waiting
		}
		gauge(descNoWorker, float64(without), q.Service, q.Type)
	}
	type load struct {
		states       map[string]int
		sum, most, n int
	}
	services := map[string]*load{}
	for _, w := range g.e.workers() {
		l := services[w.Service]
		if l == nil {
			l = &load{states: map[string]int{}}
			services[w.Service] = l
		}
		l.states[w.State]++
		if w.State == stateIncompatible {
			continue
		}
		l.n++
		l.sum += w.Outstanding
		l.most = max(l.most, w.Outstanding)
	}
	for name, l := range services {
		for state, n := range l.states {
			gauge(descWorkers, float64(n), name, state)
		}
		gauge(descInFlight, float64(l.sum), name)
		imbalance := 1.0
		if l.sum > 0 {
			imbalance = float64(l.most) * float64(l.n) / float64(l.sum)
		}
		gauge(descImbalance, imbalance, name)
	}
	gauge(descResident, float64(g.e.resident.Load()))
	gauge(descUnfinished, float64(g.e.unfinished.Load()))
	gauge(descLocksHeld, float64(g.e.locksHeld.Load()))
	gauge(descLocksWait, float64(g.e.locksWaiting.Load()))
	owned := 0.0
	for range g.e.shards.all() {
		owned++
	}
	gauge(descShards, owned)
	age := 0.0
	if at := g.e.oldestEnded.Load(); at != 0 {
		age = g.e.clock.now().Sub(time.UnixMilli(at)).Seconds()
	}
	gauge(descOldest, age)
	connected := 0.0
	if g.e.dispatcher.isConnected() {
		connected = 1
	}
	gauge(descBroker, connected)
}
