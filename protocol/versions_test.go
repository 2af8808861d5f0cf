package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ringmaster-dev/ringmaster/broker"
)

func TestTwoSidesTalkInTheNewestVersionThatBothSpeak(t *testing.T) {
	for _, c := range []struct {
		a, b Versions
		want int
	}{
		{Versions{1, 2}, Versions{1, 2}, 2}, {Versions{1, 2}, Versions{1, 1}, 1}, {Versions{1, 2}, Versions{2, 3}, 2},
		{Versions{1, 2}, Versions{2, 2}, 2}, {Versions{1, 2}, Versions{3, 4}, 0}, {Versions{1, 1}, Versions{2, 3}, 0},
	} {
		for _, pair := range [][2]Versions{{c.a, c.b}, {c.b, c.a}} {
			got, err := pair[0].Common(pair[1])
			if got != c.want || (err == nil) != (c.want > 0) {
				t.Errorf("%v and %v: %d, %v, want %d", pair[0], pair[1], got, err, c.want)
			}
			if err != nil && (!errors.Is(err, ErrVersion) ||
				!strings.Contains(err.Error(), "the peer speaks protocol version "+pair[1].String()+", this side speaks version "+pair[0].String())) {
				t.Error(err)
			}
		}
	}
}

func refusedVersion(t *testing.T, what string, err error, theirs Versions) {
	t.Helper()
	var v *VersionError
	if !errors.As(err, &v) || !errors.Is(err, ErrMalformed) || v.Theirs != theirs || !strings.Contains(err.Error(), "version "+theirs.String()) ||
		!strings.Contains(err.Error(), "this side speaks version "+v.Ours.String()) || v.Ours.Max != Version {
		t.Errorf("%s: %v", what, err)
	}
}

// What is for one peer is in a version that it speaks, or there is a fault.
func TestDirectedMessagesOfOtherVersionsAreRefusedNamingBoth(t *testing.T) {
	task, result := sampleTask(), sampleResult()
	decoders := map[string]func(m *broker.Message) error{
		"task":    func(m *broker.Message) error { _, _, _, err := DecodeTasks(m); return err },
		"result":  func(m *broker.Message) error { _, _, err := DecodeResults(m); return err },
		"control": func(m *broker.Message) error { _, err := DecodeControl(m); return err },
	}
	for v := MinVersion - 1; v <= Version+1; v++ {
		for _, m := range []broker.Message{
			EncodeTask(v, "q", &task), EncodeTasks(v, "q", "o", 1, []*Task{&task}), EncodeResult(v, "x", &result),
			EncodeResults(v, "x", []*Result{&result}), EncodeControl(v, "q", &Control{Orchestrator: "o"}),
		} {
			what := fmt.Sprintf("%s of version %d", m.Type, v)
			err := decoders[m.Type](&m)
			if MessageVersion(&m) != v {
				t.Errorf("%s: says version %d", what, MessageVersion(&m))
			}
			if v < MinVersion || v > Version {
				refusedVersion(t, what, err, Versions{v, v})
			} else if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			m.Headers = maps.Clone(m.Headers)
			StampVersion(m.Headers, Version) // what the body says counts as well
			if m.ContentType == ContentTypeBatch && (v < MinVersion || v > Version) {
				refusedVersion(t, what+" in its body", decoders[m.Type](&m), Versions{v, v})
			}
		}
	}
}

// Heartbeats and announcements are for everybody, and say which versions their
// sender speaks: what counts is whether one of them is spoken here.
func TestMessagesForAllAreJudgedByWhatTheirSenderSpeaks(t *testing.T) {
	hb, a := sampleHeartbeat(), Announcement{Orchestrator: "orch-z", Shards: map[uint32]uint64{1: 1}}
	for _, c := range []struct {
		peer Versions
		good bool
	}{
		{Versions{MinVersion, MinVersion}, true}, {Versions{MinVersion, Version}, true}, {Versions{Version, Version}, true},
		{Versions{Version, Version + 1}, true}, {Versions{Version + 1, Version + 1}, false}, {Versions{Version + 1, Version + 2}, false},
	} {
		m, n := encodeHeartbeat(c.peer, "x", &hb), encodeAnnouncement(c.peer, "x", &a)
		gotHB, err := DecodeHeartbeat(&m)
		if gotHB.Speaks() != c.peer || gotHB.Worker != hb.Worker || gotHB.Queue != hb.Queue || (err == nil) != c.good {
			t.Errorf("heartbeat of a peer of version %v: %+v, %v", c.peer, gotHB, err)
		}
		gotA, err2 := DecodeAnnouncement(&n)
		if gotA.Speaks() != c.peer || gotA.Orchestrator != a.Orchestrator || (err2 == nil) != c.good {
			t.Errorf("announcement of a peer of version %v: %+v, %v", c.peer, gotA, err2)
		}
		if !c.good {
			refusedVersion(t, `worker "payments-1-0190"`, err, c.peer)
			refusedVersion(t, `orchestrator "orch-z"`, err2, c.peer)
		}
	}
}

// A later version may change all but who a message is from.
func TestMessagesOfTheFutureAreRefusedForTheirVersion(t *testing.T) {
	future := func(k Kind, body string) *broker.Message {
		return &broker.Message{Type: string(k), AppID: "sender-1", Headers: versionHeader(Version + 1), Body: []byte(body)}
	}
	v := Version + 1
	for body, theirs := range map[string]Versions{
		fmt.Sprintf(`{"version":%d,"max_version":%d,"worker":"w-1","queue":"q","credit":{"a":1},"queued":"none"}`, v, v+1): {v, v + 1},
		`{"version":1,"max_version":2,"worker":"w-1","queue":"q"}`:                                                         {v, v},
		`[1,2]`: {v, v},
		``:      {v, v},
	} {
		h, err := DecodeHeartbeat(future(KindHeartbeat, body))
		refusedVersion(t, body, err, theirs)
		if strings.Contains(body, "w-1") != (h.Worker == "w-1" && h.Queue == "q") || h.Worker == "" {
			t.Errorf("%s: %+v", body, h)
		}
		a, err := DecodeAnnouncement(future(KindAnnouncement, body))
		refusedVersion(t, body, err, theirs)
		if a.Orchestrator != "sender-1" {
			t.Errorf("%s: %+v", body, a)
		}
	}
	if h, _ := DecodeHeartbeat(future(KindHeartbeat, "{\"version\":9,\"worker\":\"a\\nb\"}")); h.Worker != "" {
		t.Errorf("a worker's name with a line feed: %q", h.Worker)
	}
}

func TestWhatAPeerSaysOfItsVersionsIsChecked(t *testing.T) {
	hb := sampleHeartbeat()
	m := EncodeHeartbeat("x", &hb)
	for from, to := range map[string]string{`"version":1`: `"version":0`, `"max_version":2`: `"max_version":-1`, `"version":1,`: `"version":40000,`} {
		bad := m
		bad.Body = bytes.Replace(slices.Clone(m.Body), []byte(from), []byte(to), 1)
		_, err := DecodeHeartbeat(&bad)
		refused(t, to, err, "version")
	}
}

// A request may have lain in its queue while the orchestrators were upgraded.
func TestRequestsOfAllOlderVersionsAreRead(t *testing.T) {
	for v := 0; v <= Version+1; v++ {
		m, n := EncodeRequest("q", &Request{Type: RequestCancel, RunID: "r"}), EncodeAnswer("q", &Answer{RunID: "r"})
		StampVersion(m.Headers, v)
		StampVersion(n.Headers, v)
		_, err := DecodeRequest(&m)
		_, err2 := DecodeAnswer(&n)
		if good := v >= 1 && v <= Version; good != (err == nil) || good != (err2 == nil) {
			t.Errorf("version %d: %v, %v", v, err, err2)
		}
	}
}

// Mail has the form of the version that brought it, so that orchestrators of later
// versions read it from earlier ones.
func TestMailIsReadByAllVersionsThatHaveIt(t *testing.T) {
	for v := 1; v <= Version+1; v++ {
		m := EncodeErrand("x", "k", "node-a", "1", []byte("{}"))
		StampVersion(m.Headers, v)
		if _, err := DecodeMail(&m); (v >= mailVersion && v <= Version) != (err == nil) {
			t.Errorf("version %d: %v", v, err)
		}
	}
}

func TestFeaturesAreOfVersionsThatThereAre(t *testing.T) {
	for _, f := range Features() {
		if f.Since <= 1 || f.Since > Version || f.Older == "" {
			t.Errorf("%+v", f)
		}
	}
}
