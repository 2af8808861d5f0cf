package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ringmaster-dev/ringmaster/client"
	"github.com/ringmaster-dev/ringmaster/internal/render"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/store"
	"github.com/ringmaster-dev/ringmaster/store/sqlite"
)

// finding is what one check of doctor came to.
type finding struct {
	Check  string `json:"check"`
	Result string `json:"result"` // ok, warn or fail
	Found  string `json:"found"`
	Advice string `json:"advice,omitempty"`
}

// diagnosis is what doctor -o json prints.
type diagnosis struct {
	Result   string    `json:"result"` // the worst of the findings
	Findings []finding `json:"findings"`
}

func ok(found string, args ...any) finding {
	return finding{Result: "ok", Found: fmt.Sprintf(found, args...)}
}

func warn(advice, found string, args ...any) finding {
	return finding{Result: "warn", Found: fmt.Sprintf(found, args...), Advice: advice}
}

func fail(advice, found string, args ...any) finding {
	return finding{Result: "fail", Found: fmt.Sprintf(found, args...), Advice: advice}
}

func newDoctor(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check this machine and the parts, and say what to do about each fault",
		Long: `Checks the API, the database, the disk and how fast it makes things durable, each
node of the broker, the clock, and the limits of the operating system, and says
for each fault what to do. Of a PostgreSQL server it also looks at settings,
connections and clock, and it takes a lease where orchestrators keep theirs. It opens the database as the orchestrator would, unless one has
it open, and to measure it writes a small file beside it, or a row, which it
removes.

It reads the settings that "serve" would read, with the same defaults: flags,
RINGMASTER_* variables, --config. It asks the API where "serve" would listen,
unless --api or RINGMASTER_API says where it is. The database of "dev" is
checked with --db ` + defaultDevDB + `.
Exit status 1 if any check failed; warnings do not count.`,
		Example: "  orchestrator doctor --db /var/lib/ringmaster/ringmaster.db --amqp-url amqp://guest:guest@127.0.0.1:5672/\n  orchestrator doctor -o json | jq -r '.findings[] | select(.result != \"ok\") | .advice'",
		Args:    args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, _, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			if c.apiURL == "" && os.Getenv("RINGMASTER_API") == "" {
				c.apiURL = "http://" + reachable(s.Listen)
			}
			if !s.onServer() {
				s.DB = s.file()
			}
			return c.doctor(cmd.Context(), s)
		},
	}
	daemonFlags(cmd.Flags(), "info")
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		f.Hidden = f.Name != "config" && f.Name != "listen" // accepted, since one file serves both
	})
	cmd.Flags().String("db", defaultServeDB, "SQLite file or PostgreSQL database of the orchestrator")
	cmd.Flags().String("amqp-url", "", "RabbitMQ; without it the broker is not checked")
	cmd.Flags().String("leases", "", leasesFlag)
	cmd.Flags().Duration("lease-time", lock.DefaultTTL, leaseTimeFlag)
	cmd.Flags().Lookup("lease-time").Hidden = true
	c.outputFlag(cmd)
	return cmd
}

// checkTimeout bounds one check.
const checkTimeout = 10 * time.Second

func (c *cli) doctor(ctx context.Context, s settings) error {
	type check struct {
		name string
		do   func(context.Context) finding
	}
	checks := []check{{"api", c.checkAPI}, {"clock", c.checkClock}}
	if s.onServer() {
		for _, db := range s.databases() {
			checks = append(checks, check{"store", func(ctx context.Context) finding { return checkServer(ctx, s, db) }},
				check{"server", func(ctx context.Context) finding { return checkServerSettings(ctx, db) }})
		}
		checks = append(checks, check{"leases", func(ctx context.Context) finding { return checkProvider(ctx, s) }})
	} else {
		checks = append(checks, check{"store", func(ctx context.Context) finding { return c.checkStore(ctx, s) }},
			check{"disk space", func(context.Context) finding { return checkDisk(filepath.Dir(s.DB)) }},
			check{"fsync", func(context.Context) finding { return checkSync(filepath.Dir(s.DB)) }})
	}
	checks = append(checks, check{"broker", func(ctx context.Context) finding { return checkBroker(ctx, s) }},
		check{"open files", func(context.Context) finding { return checkFiles() }})
	d := diagnosis{Result: "ok"}
	order := []string{"ok", "warn", "fail"}
	for _, check := range checks {
		limited, cancel := context.WithTimeout(ctx, checkTimeout)
		f := check.do(limited)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.Check = check.name
		d.Findings = append(d.Findings, f)
		if slices.Index(order, f.Result) > slices.Index(order, d.Result) {
			d.Result = f.Result
		}
		if c.format != "json" {
			c.showFinding(f)
		}
	}
	if c.format == "json" {
		if err := c.printJSON(d); err != nil {
			return err
		}
	}
	if d.Result == "fail" {
		return errSaid
	}
	return nil
}

func (c *cli) showFinding(f finding) {
	sign := map[string]string{"ok": "✔ ok  ", "warn": "! warn", "fail": "✘ fail"}[f.Result]
	fmt.Fprintf(c.out, "%s  %-10s  %s\n", c.style.State(f.Result, sign), f.Check, render.Clean(f.Found))
	if f.Advice != "" {
		fmt.Fprintf(c.out, "%22s%s\n", "", render.Clean(f.Advice))
	}
}

func (c *cli) checkAPI(ctx context.Context) finding {
	cl, err := client.New(client.Config{URL: c.api(), RetryFor: -1})
	if err != nil {
		return fail("correct --api or RINGMASTER_API: expected http://host:port", "%s is not a URL of an API", c.api())
	}
	health, err := cl.Health(ctx)
	switch {
	case errors.Is(err, client.ErrUnavailable):
		return warn("start one with \"orchestrator dev\" or \"orchestrator serve\", or say where it is with --api or RINGMASTER_API",
			"no orchestrator answers at %s", c.api())
	case err != nil:
		return fail("something else may listen there; give the orchestrator another address with --listen, and its callers the same with --api", "%v", err)
	case health.Status != "ok":
		var wrong []string
		for part, state := range health.Checks {
			if state != "ok" {
				wrong = append(wrong, part+": "+state)
			}
		}
		slices.Sort(wrong)
		return fail("see the checks below and the orchestrator's log", "the orchestrator at %s is %s: %s", c.api(), health.Status, strings.Join(wrong, "; "))
	}
	return ok("the orchestrator at %s is well", c.api())
}

// maxSkew is how far the clocks of two machines may be apart before people are
// misled by times. Nothing else depends on them.
const maxSkew = 2 * time.Second

func (c *cli) checkClock(ctx context.Context) finding {
	now := time.Now()
	if now.Year() < 2025 {
		return fail("set the clock, for example by running an NTP client", "this machine says it is %s", now.Format(time.DateTime))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.api()+"/healthz", nil)
	if err == nil {
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
			if their, err := http.ParseTime(res.Header.Get("Date")); err == nil {
				// Date has whole seconds.
				if skew := time.Since(their) - 500*time.Millisecond; skew.Abs() > maxSkew {
					return warn("keep both machines' clocks with NTP; deadlines that callers compute depend on them", "this machine's clock and the orchestrator's are %s apart", render.Duration(skew.Abs()))
				}
			}
		}
	}
	if synchronized, known := clockSynchronized(); known && !synchronized {
		return warn("run an NTP client, such as chrony; in a container, this is up to the host", "%s, but the kernel does not say that the clock is kept in time", now.UTC().Format(time.RFC3339))
	}
	return ok("%s", now.UTC().Format(time.RFC3339))
}

func (c *cli) checkStore(ctx context.Context, s settings) finding {
	if _, err := os.Stat(s.DB); errors.Is(err, os.ErrNotExist) {
		return notThere(s)
	}
	st, err := sqlite.Open(ctx, sqlite.Config{Path: s.DB})
	switch {
	case errors.Is(err, store.ErrLocked):
		return ok("%s is open in a running orchestrator", s.DB)
	case errors.Is(err, store.ErrNewerSchema):
		return fail("use the newer version of this program that wrote it", "%v", err)
	case errors.Is(err, os.ErrPermission):
		return fail("let this user read and write it and its folder", "%v", err)
	case err != nil:
		return fail("if the file is damaged, bring back a copy; keep the -wal file with it, which holds the last commits", "%v", err)
	}
	defer st.Close()
	if err := st.Check(ctx); err != nil {
		return fail("bring back a copy of the database", "%v", err)
	}
	runs, err := countRuns(ctx, st)
	if err != nil {
		return fail("bring back a copy of the database", "%v", err)
	}
	return ok("%s is sound; %d shards, %s", s.DB, st.Shards(), render.Count(runs, "run", "runs"))
}

func countRuns(ctx context.Context, st store.Store) (int, error) {
	counts, err := st.Counts(ctx)
	var runs int64
	for _, byStatus := range counts {
		for _, n := range byStatus {
			runs += n
		}
	}
	return int(runs), err
}

// notThere is what it means that there is no database: nothing, unless the one
// of "dev" was meant.
func notThere(s settings) finding {
	if _, err := os.Stat(defaultDevDB); err == nil && s.DB == defaultServeDB {
		return warn("if you meant the database of \"orchestrator dev\", add --db "+defaultDevDB, "%s does not exist yet; \"orchestrator serve\" makes it at its first start", s.DB)
	}
	return ok("%s does not exist yet; it is made at the first start", s.DB)
}

// checkDisk looks at the space of the file system that holds a folder, or that
// will hold it.
func checkDisk(dir string) finding {
	dir = existing(dir)
	free, share, err := diskFree(dir)
	switch {
	case err != nil:
		return warn("", "the free space of %s is unknown: %v", dir, err)
	case free < 1<<28 || share < 0.02:
		return fail("make room: a full disk ends the orchestrator, which loses nothing but stops", "%s has %s free (%.0f%%)", dir, bytesText(free), share*100)
	case free < 2<<30 || share < 0.10:
		return warn("make room soon", "%s has %s free (%.0f%%)", dir, bytesText(free), share*100)
	}
	return ok("%s has %s free (%.0f%%)", dir, bytesText(free), share*100)
}

// existing is the nearest folder above that exists.
func existing(dir string) string {
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			return dir
		}
		dir = up
	}
}

func bytesText(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// slowSync is an fsync so slow that a run of three steps takes a second or so.
const slowSync = 50 * time.Millisecond

// checkSync measures how long it takes to make a small write durable.
func checkSync(dir string) finding {
	dir = existing(dir)
	f, err := os.CreateTemp(dir, ".ringmaster-doctor-")
	if err != nil {
		return fail("let this user write in "+dir, "cannot write there: %v", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	page := make([]byte, 4096)
	for range 20 {
		began := time.Now()
		if _, err := f.Write(page); err != nil {
			return fail("see to the disk", "write in %s: %v", dir, err)
		}
		if err := f.Sync(); err != nil {
			return fail("see to the disk: what it does not sync is lost at a power cut", "sync in %s: %v", dir, err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	median, worst := took[len(took)/2], took[len(took)-1]
	if median > slowSync {
		return warn("put the database on a local SSD: every step of a run waits for one such write, shared by all that gather meanwhile", "%s at the median, %s at worst", render.Duration(median), render.Duration(worst))
	}
	return ok("a durable write takes %s at the median, %s at worst", render.Duration(median), render.Duration(worst))
}

func askBroker(ctx context.Context, u string) (string, error) {
	deadline, _ := ctx.Deadline()
	conn, err := amqp.DialConfig(u, amqp.Config{
		Dial:       amqp.DefaultDial(min(5*time.Second, time.Until(deadline))),
		Properties: amqp.Table{"connection_name": "orchestrator doctor"},
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return "", err
	}
	if _, err := ch.QueueDeclare("", false, true, true, false, nil); err != nil {
		return "", fmt.Errorf("declare a queue: %w", err)
	}
	product, _ := conn.Properties["product"].(string)
	release, _ := conn.Properties["version"].(string)
	return strings.TrimSpace(product+" "+release) + " answers at " + hostOf(u), nil
}

func hostOf(u string) string {
	if parsed, err := url.Parse(u); err == nil {
		return parsed.Host
	}
	return "the given address"
}

func brokerFailed(u string, err error) finding {
	var refused *amqp.Error
	switch {
	case errors.As(err, &refused) && refused.Code == amqp.AccessRefused, errors.Is(err, amqp.ErrCredentials):
		return fail("check user and password, and that the user may configure, write and read in the virtual host (rabbitmqctl set_permissions); guest may log in from the same machine only",
			"%s refuses: %v", hostOf(u), err)
	case errors.Is(err, amqp.ErrVhost):
		return fail("make the virtual host (rabbitmqctl add_vhost) or correct the path of the URL", "%s: %v", hostOf(u), err)
	}
	return fail("start RabbitMQ (rabbitmq-diagnostics status tells whether it runs), or correct --amqp-url", "%s does not answer: %v", hostOf(u), err)
}

// wantedFiles is how many files a busy orchestrator may have open: a
// connection for each caller, and some for the database and the broker.
const wantedFiles = 4096

func checkFiles() finding {
	limit, err := fileLimit()
	switch {
	case err != nil:
		return warn("", "the limit of open files is unknown: %v", err)
	case limit < 256:
		return fail("raise it: ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit", "at most %d files may be open", limit)
	case limit < wantedFiles:
		return warn("raise it for many callers: ulimit -n 65536, or LimitNOFILE=65536 in the systemd unit", "at most %d files may be open", limit)
	}
	return ok("up to %d files may be open", limit)
}
