package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ringmaster-dev/ringmaster/lock"
	"github.com/ringmaster-dev/ringmaster/lock/internal/session"
)

// backend is one session at the servers.
type backend struct {
	p       *Provider
	lease   clientv3.LeaseID
	owner   string
	watched chan struct{} // closed when nobody watches the session any more
}

// key is the key of the session below a prefix, named as etcd's concurrency does.
func (b *backend) key(prefix string) string {
	return prefix + strconv.FormatInt(int64(b.lease), 16)
}

// watch waits for the end of the session's own key.
func (b *backend) watch(s *session.Session, since int64) {
	defer close(b.watched)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		select {
		case <-s.Lost():
		case <-ctx.Done():
		}
	}()
	key := b.key(b.p.prefix + "/sessions/")
	for answer := range b.p.client.Watch(ctx, key, clientv3.WithRev(since+1), clientv3.WithFilterPut()) {
		if len(answer.Events) > 0 {
			s.Lose(fmt.Errorf("%w: etcd ended its lease", lock.ErrLost))
		}
	}
}

// lost makes the servers' word that there is no such lease ours.
func lost(err error) error {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) || errors.Is(err, rpctypes.ErrGRPCLeaseNotFound) {
		return fmt.Errorf("%w: etcd does not know its lease", lock.ErrLost)
	}
	return err
}

// Renew implements session.Backend. The client's own KeepAliveOnce would repeat
// itself without pause while no server can be reached.
func (b *backend) Renew(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx) // ends the stream
	defer cancel()
	stream, err := clientv3.RetryLeaseClient(b.p.client).LeaseKeepAlive(clientv3.WithRequireLeader(ctx))
	if err != nil {
		return lost(err)
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(b.lease)}); err != nil {
		return lost(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		return lost(err)
	}
	if answer.TTL <= 0 {
		return lost(rpctypes.ErrLeaseNotFound)
	}
	return nil
}

// TryLock implements session.Backend: the key is made only if there is none for
// the name.
func (b *backend) TryLock(ctx context.Context, name string) (uint64, error) {
	below := b.p.below(name)
	answer, err := b.p.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(below), "=", 0).WithPrefix()).
		Then(clientv3.OpPut(b.key(below), b.owner, clientv3.WithLease(b.lease))).
		Else(clientv3.OpGet(below, clientv3.WithFirstCreate()...)).Commit()
	if err != nil {
		return 0, lost(err)
	}
	if answer.Succeeded {
		return uint64(answer.Header.Revision), nil
	}
	if kvs := answer.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 && string(kvs[0].Key) == b.key(below) {
		return uint64(kvs[0].CreateRevision), nil
	}
	return 0, lock.ErrHeld
}

// Lock implements session.Backend: who has made its key waits until those before
// it are gone.
func (b *backend) Lock(ctx context.Context, name string) (uint64, error) {
	below := b.p.below(name)
	key := b.key(below)
	ctx = clientv3.WithRequireLeader(ctx)
	for waits := false; ; waits = true {
		token, err := b.wait(ctx, below, key)
		switch {
		case token != 0:
			return token, nil
		case err != nil && !waits && !errors.Is(err, errWaits):
			return 0, err
		case err != nil:
			if err := session.Pause(ctx, err); err != nil {
				return 0, err
			}
		}
	}
}

// errWaits is in the errors of those who have a place among those who wait.
var errWaits = errors.New("waiting for a lease")

// wait makes the key, if it is not there, and waits until it is the oldest. Zero
// says that somebody has removed it meanwhile.
func (b *backend) wait(ctx context.Context, below, key string) (uint64, error) {
	answer, err := b.p.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, b.owner, clientv3.WithLease(b.lease))).
		Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return 0, lost(err)
	}
	mine := answer.Header.Revision
	if !answer.Succeeded {
		mine = answer.Responses[0].GetResponseRange().Kvs[0].CreateRevision
	}
	if err := b.awaitOlder(ctx, below, mine); err != nil {
		return 0, fmt.Errorf("%w: %w", errWaits, err)
	}
	// If it has gone, it is another's turn.
	still, err := b.p.client.Get(ctx, key)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errWaits, lost(err))
	}
	if len(still.Kvs) == 1 && still.Kvs[0].CreateRevision == mine {
		return uint64(mine), nil
	}
	return 0, nil
}

// awaitOlder returns when there is no key that is older than a revision.
func (b *backend) awaitOlder(ctx context.Context, below string, revision int64) error {
	for {
		before, err := b.p.client.Get(ctx, below, append(clientv3.WithLastCreate(), clientv3.WithMaxCreateRev(revision-1))...)
		if err != nil {
			return err
		}
		if len(before.Kvs) == 0 {
			return nil
		}
		if err := b.awaitDelete(ctx, string(before.Kvs[0].Key), before.Header.Revision+1); err != nil {
			return err
		}
	}
}

// awaitDelete returns when a key has been deleted since a revision, or when it is
// time to look again.
func (b *backend) awaitDelete(ctx context.Context, key string, since int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for answer := range b.p.client.Watch(ctx, key, clientv3.WithRev(since), clientv3.WithFilterPut()) {
		if err := answer.Err(); err != nil && answer.CompactRevision == 0 {
			return err
		}
		if len(answer.Events) > 0 || answer.CompactRevision != 0 {
			return nil
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.New("etcd ended a watch")
}

// Release implements session.Backend.
func (b *backend) Release(ctx context.Context, name string, token uint64) error {
	key := b.key(b.p.below(name))
	answer, err := b.p.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", int64(token))).
		Then(clientv3.OpDelete(key)).Commit()
	if err != nil {
		return err
	}
	if !answer.Succeeded {
		return lock.ErrNotHolder
	}
	return nil
}

// Forget implements session.Backend.
func (b *backend) Forget(ctx context.Context, name string) error {
	_, err := b.p.client.Delete(ctx, b.key(b.p.below(name)))
	return err
}

// Held implements session.Backend: requests may go by different members.
func (b *backend) Held(ctx context.Context) ([]string, error) {
	answer, err := b.p.client.TimeToLive(ctx, b.lease, clientv3.WithAttachedKeys())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, key := range answer.Keys {
		if name, ok := strings.CutPrefix(string(key), b.p.prefix+"/leases/"); ok {
			name, _, _ = strings.Cut(name, "/")
			if name, err = url.PathUnescape(name); err == nil {
				names = append(names, name)
			}
		}
	}
	return names, nil
}

// End implements session.Backend.
func (b *backend) End(ctx context.Context) error {
	<-b.watched // the session is lost
	_, err := b.p.client.Revoke(ctx, b.lease)
	if errors.Is(lost(err), lock.ErrLost) {
		return nil
	}
	return err
}
