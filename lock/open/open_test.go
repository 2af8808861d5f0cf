package open_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ringmaster-dev/ringmaster/internal/testenv"
	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/open"
)

func TestEveryProviderIsOpenedByItsAddress(t *testing.T) {
	for name, address := range map[string]string{
		"postgres":  testenv.Postgres(t),
		"redis":     testenv.Redis(t),
		"etcd":      testenv.Etcd(t) + "/some/prefix",
		"zookeeper": testenv.ZooKeeper(t) + "/some/path",
	} {
		t.Run(name, func(t *testing.T) {
			var sessions []lock.Session
			for _, namespace := range []string{"open-test", "open-test", "open-test-2"} {
				p, err := open.URL(t.Context(), address, open.Config{Namespace: namespace})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = p.Close() }()
				s, err := p.Open(t.Context(), lock.SessionConfig{Owner: "test", TTL: 20 * time.Second})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = s.Close(context.Background()) }()
				sessions = append(sessions, s)
			}
			for i, want := range []error{nil, lock.ErrHeld, nil} {
				if _, err := sessions[i].TryLock(t.Context(), "name"); !errors.Is(err, want) {
					t.Errorf("session %d: %v, expected %v", i, err, want)
				}
			}
		})
	}
}

func TestAddressesAreChecked(t *testing.T) {
	for address, want := range map[string]string{
		"redis://10.0.0.1": "",
		"redis://:secret@10.0.0.1:6379,10.0.0.2:6379,10.0.0.3/2":   "",
		"rediss://user:se%2Fcret@redis.example.com":                "",
		"zookeeper://zk-1,zk-2:2181,[::1]:2181/ringmaster":         "",
		"etcd://user:secret@etcd-1,etcd-2":                         "",
		"etcds://etcd.example.com":                                 "",
		"postgres://user:secret@db/ringmaster?sslmode=verify-full": "",

		"postgres://user:secret@db:port/x":     "invalid port",
		"":                                     "begins with",
		"10.0.0.1:6379":                        "begins with",
		"consul://10.0.0.1":                    "begins with",
		"redis://:secret@":                     "a host is missing",
		"etcd://etcd-1,,etcd-2":                "a host is missing",
		"zookeeper:///path":                    "a host is missing",
		"redis://:secret@10.0.0.1,10.0.0.2":    "an odd number",
		"redis://user:sec%ret@10.0.0.1:6379/1": "special characters",
	} {
		err := open.Check(address)
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", address, err)
		case want != "" && (!errors.Is(err, lock.ErrInvalid) || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, expected %q", address, err, want)
		case err != nil && strings.Contains(err.Error(), "sec"):
			t.Errorf("%q: the password is in the error %v", address, err)
		}
	}
	if _, err := open.URL(t.Context(), "consul://10.0.0.1", open.Config{}); !errors.Is(err, lock.ErrInvalid) {
		t.Errorf("opening what is no address: %v", err)
	}
}
