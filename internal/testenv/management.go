package testenv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
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

// waitDial waits until something listens on a port of the loopback interface.
func waitDial(ctx context.Context, port int, exited <-chan struct{}) error {
	return poll(ctx, exited, func() error {
		c, err := net.DialTimeout("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), time.Second)
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
	base := fmt.Sprintf("http://guest:guest@127.0.0.1:%d", n.Management)
	if err := waitDial(ctx, n.Port, p.exited); err != nil {
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
		return &statusError{code: resp.StatusCode, text: fmt.Sprintf("%s %s: %s: %s", method, req.URL.Path, resp.Status, b)}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return e.text }

// KillConnections closes, from the management side, every connection to the
// node whose client-provided name begins with prefix, and returns how many
// they were. It waits until there is at least one: the node lists a new
// connection a moment after it was made.
func (r *Rabbit) KillConnections(ctx context.Context, prefix string) (int, error) {
	if r.ManagementURL == "" {
		return 0, errors.New("killing connections: this RabbitMQ has no management address")
	}
	killed := 0
	err := poll(ctx, nil, func() error {
		var conns []struct {
			Name       string `json:"name"`
			Properties struct {
				Name string `json:"connection_name"`
			} `json:"client_properties"`
		}
		if err := manage(ctx, http.MethodGet, r.ManagementURL+"/api/connections", nil, &conns); err != nil {
			return err
		}
		for _, c := range conns {
			if !strings.HasPrefix(c.Properties.Name, prefix) {
				continue
			}
			err := manage(ctx, http.MethodDelete, r.ManagementURL+"/api/connections/"+url.PathEscape(c.Name), nil, nil)
			var se *statusError
			if errors.As(err, &se) && se.code == http.StatusNotFound {
				continue // listed, yet gone already
			}
			if err != nil {
				return err
			}
			killed++
		}
		if killed == 0 {
			return fmt.Errorf("no connection is named %s...", prefix)
		}
		return nil
	})
	return killed, err
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
