package main

import (
	"bufio"
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// probeTimeout bounds one look at a process, which may be frozen.
const probeTimeout = 500 * time.Millisecond

// samples are the sums of metrics over their labels.
type samples map[string]float64

// scrape reads the metrics at an address; nothing if it does not answer.
func scrape(ctx context.Context, address string) samples {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	sums := samples{}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, ok := sample(lines.Text())
		if ok {
			sums[name] += value
		}
	}
	return sums
}

// sample reads a line of the text format, without its labels.
func sample(line string) (name string, value float64, ok bool) {
	if strings.HasPrefix(line, "#") {
		return "", 0, false
	}
	rest, text, ok := cutLast(line, " ")
	if !ok {
		return "", 0, false
	}
	name, _, _ = strings.Cut(rest, "{")
	value, err := strconv.ParseFloat(text, 64)
	return name, value, err == nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
