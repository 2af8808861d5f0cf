package testenv

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// pollEvery is the pause between two questions to a service.
const pollEvery = 50 * time.Millisecond

// waitDial waits until something listens at an address.
func waitDial(ctx context.Context, addr string, exited <-chan struct{}) error {
	return poll(ctx, exited, func() error {
		c, err := net.DialTimeout("tcp4", addr, time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// poll repeats f until it succeeds, the process has exited or time is up.
func poll(ctx context.Context, exited <-chan struct{}, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("the process ended; last answer: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("%w; last answer: %w", ctx.Err(), err)
		case <-time.After(pollEvery):
		}
	}
}

// waitReady waits until the node serves AMQP and its management API.
func (n *rabbitNode) waitReady(ctx context.Context, p *process) error {
	base := "http://guest:guest@" + n.at(n.Management)
	if err := waitDial(ctx, n.at(n.Port), p.exited); err != nil {
		return err
	}
	return poll(ctx, p.exited, func() error {
		return manage(ctx, http.MethodGet, base+"/api/overview", nil, nil)
	})
}

// manage sends one request to the management API. in and out are JSON; nil is
// none.
func manage(ctx context.Context, method, url string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	// A connection of its own, closed at once, leaves no goroutine behind.
	req.Close = true
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, req.URL.Path, resp.Status, b)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// killScript closes connections by the name that the client gave. The
// management API could do it too, but lists connections some seconds late.
const killScript = `length([closed || P <- rabbit_networking:connections(),
	{client_properties, Ps} <- case catch rabbit_networking:connection_info(P, [client_properties]) of L when is_list(L) -> L; _ -> [] end,
	{<<"connection_name">>, _, N} <- Ps, string:prefix(N, <<%q>>) =/= nomatch,
	(catch rabbit_networking:close_connection(P, "closed by a test")) =:= ok]).`

// KillConnections closes, from the side of the server, every connection to the
// node whose client-provided name begins with prefix, and returns how many
// they were.
func (r *Rabbit) KillConnections(ctx context.Context, prefix string) (int, error) {
	out, err := r.Control(ctx, "eval", fmt.Sprintf(killScript, prefix))
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		return 0, fmt.Errorf("killing connections: unexpected answer %q", out)
	}
	if n == 0 {
		return 0, fmt.Errorf("killing connections: none is named %s...", prefix)
	}
	return n, nil
}

// VirtualHost makes a virtual host and returns the AMQP address of it.
func (r *Rabbit) VirtualHost(ctx context.Context, name string) (string, error) {
	u, err := url.Parse(r.URL)
	if err != nil {
		return "", err
	}
	base := r.ManagementURL + "/api/"
	if err := manage(ctx, http.MethodPut, base+"vhosts/"+url.PathEscape(name), struct{}{}, nil); err != nil {
		return "", fmt.Errorf("making a virtual host: %w", err)
	}
	all := map[string]string{"configure": ".*", "write": ".*", "read": ".*"}
	if err := manage(ctx, http.MethodPut, base+"permissions/"+url.PathEscape(name)+"/"+url.PathEscape(u.User.Username()), all, nil); err != nil {
		return "", fmt.Errorf("giving access to a virtual host: %w", err)
	}
	u.Path, u.RawPath = "/"+name, ""
	return u.String(), nil
}

// DropVirtualHost deletes a virtual host and everything in it.
func (r *Rabbit) DropVirtualHost(ctx context.Context, name string) error {
	return manage(ctx, http.MethodDelete, r.ManagementURL+"/api/vhosts/"+url.PathEscape(name), nil, nil)
}
