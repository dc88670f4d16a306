package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// What every client is told.
type target struct {
	address, path, key string
	bodyBytes          int
	seconds            float64
}

func (t *target) flags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ExitOnError)
	flags.StringVar(&t.address, "target", "127.0.0.1:8080", "host:port of the proxy")
	flags.StringVar(&t.path, "path", "/v1/chat/completions", "")
	flags.StringVar(&t.key, "key", "sk-bench", "API key")
	flags.IntVar(&t.bodyBytes, "body", 1000, "bytes of the request's body")
	flags.Float64Var(&t.seconds, "seconds", 10, "how long")
	return flags
}

func (t *target) request(stream bool, chunks int, intervalMs int64) []byte {
	head := fmt.Sprintf(`{"model":"bench","stream":%t,"max_tokens":%d,"seed":%d,"messages":[{"role":"user","content":"`,
		stream, chunks, intervalMs)
	tail := `"}]}`
	text := strings.Repeat("lorem ipsum ", t.bodyBytes/12+1)[:max(1, t.bodyBytes-len(head)-len(tail))]
	body := head + text + tail
	return []byte(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
		"Content-Length: %d\r\n\r\n%s", t.path, t.key, len(body), body))
}

// One connection that speaks just enough HTTP/1.1 for the proxies of this benchmark.
type connection struct {
	socket net.Conn
	in     *bufio.Reader
}

func (t *target) connect() (*connection, error) {
	socket, err := net.DialTimeout("tcp", t.address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return &connection{socket, bufio.NewReaderSize(socket, 16<<10)}, nil
}

// head reads status line and headers: the status, the length (-1: chunked) and whether the connection will close.
func (c *connection) head() (status, length int, closing bool, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return
	}
	fields := bytes.Fields(line)
	if len(fields) < 2 {
		return 0, 0, false, fmt.Errorf("not HTTP: %q", line)
	}
	status, _ = strconv.Atoi(string(fields[1]))
	length = -1
	for {
		line, err = c.in.ReadSlice('\n')
		if err != nil || len(bytes.TrimSpace(line)) == 0 {
			return
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch strings.ToLower(string(name)) {
		case "content-length":
			length, _ = strconv.Atoi(string(bytes.TrimSpace(value)))
		case "connection":
			closing = bytes.EqualFold(bytes.TrimSpace(value), []byte("close"))
		}
	}
}

// body reads the whole body and gives it to take, piece by piece.
func (c *connection) body(length int, take func([]byte)) error {
	piece := make([]byte, 16<<10)
	if length >= 0 {
		return c.exactly(length, piece, take)
	}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return fmt.Errorf("not a chunk size: %q", line)
		}
		if err = c.exactly(int(size), piece, take); err != nil {
			return err
		}
		if _, err = c.in.ReadSlice('\n'); err != nil || size == 0 {
			return err
		}
	}
}

func (c *connection) exactly(length int, piece []byte, take func([]byte)) error {
	for length > 0 {
		n, err := c.in.Read(piece[:min(length, len(piece))])
		if err != nil {
			return err
		}
		take(piece[:n])
		length -= n
	}
	return nil
}

// one sends a request and reads its answer; the time to the first byte.
func (c *connection) one(request []byte) (time.Duration, bool, error) {
	began := time.Now()
	if _, err := c.socket.Write(request); err != nil {
		return 0, false, err
	}
	if _, err := c.in.Peek(1); err != nil {
		return 0, false, err
	}
	first := time.Since(began)
	status, length, closing, err := c.head()
	if err != nil {
		return 0, false, err
	}
	size := 0
	if err = c.body(length, func(piece []byte) { size += len(piece) }); err != nil {
		return 0, false, err
	}
	if status != 200 || size != len(answer) {
		return 0, closing, fmt.Errorf("status %d, %d bytes", status, size)
	}
	return first, closing, nil
}

type found struct {
	Done    int64   `json:"done"`
	Errors  int64   `json:"errors"`
	Error   string  `json:"error,omitempty"`
	Seconds float64 `json:"seconds"`
	P50Ms   float64 `json:"p50_ms"`
	P99Ms   float64 `json:"p99_ms"`
}

type tally struct {
	sync.Mutex
	done, errors int64
	first        []time.Duration
	message      string
}

func (t *tally) add(first time.Duration, err error) {
	t.Lock()
	defer t.Unlock()
	if err != nil {
		t.errors++
		t.message = err.Error()
		return
	}
	t.done++
	t.first = append(t.first, first)
}

func (t *tally) print(began time.Time) {
	result := found{Done: t.done, Errors: t.errors, Error: t.message, Seconds: time.Since(began).Seconds()}
	if len(t.first) > 0 {
		sort.Slice(t.first, func(i, j int) bool { return t.first[i] < t.first[j] })
		result.P50Ms = t.first[len(t.first)/2].Seconds() * 1e3
		result.P99Ms = t.first[len(t.first)*99/100].Seconds() * 1e3
	}
	json.NewEncoder(os.Stdout).Encode(result)
}

// closed: so many connections, each sends as soon as it has its answer.
func closed(arguments []string) {
	var t target
	flags := t.flags("closed")
	connections := flags.Int("connections", 32, "")
	flags.Parse(arguments)
	request, began, sum := t.request(false, 16, 0), time.Now(), &tally{}
	until := began.Add(time.Duration(t.seconds * float64(time.Second)))
	var all sync.WaitGroup
	for range *connections {
		all.Add(1)
		go func() {
			defer all.Done()
			t.repeat(request, until, sum)
		}()
	}
	all.Wait()
	sum.print(began)
}

func (t *target) repeat(request []byte, until time.Time, sum *tally) {
	var c *connection
	for time.Now().Before(until) {
		var err error
		if c == nil {
			if c, err = t.connect(); err != nil {
				sum.add(0, err)
				time.Sleep(10 * time.Millisecond)
				continue
			}
		}
		first, closing, err := c.one(request)
		sum.add(first, err)
		if err != nil || closing {
			c.socket.Close()
			c = nil
		}
	}
}

// open: requests come at a rate of their own, whatever the proxy does; the latency counts from when each was due.
func open(arguments []string) {
	var t target
	flags := t.flags("open")
	rate := flags.Float64("rate", 300, "requests a second, at random moments")
	flags.Parse(arguments)
	request, began, sum := t.request(false, 16, 0), time.Now(), &tally{}
	idle := make(chan *connection, 1024)
	var all sync.WaitGroup
	random := rand.New(rand.NewSource(1))
	for due := began; due.Sub(began).Seconds() < t.seconds; {
		due = due.Add(time.Duration(random.ExpFloat64() / *rate * float64(time.Second)))
		time.Sleep(time.Until(due))
		all.Add(1)
		go func() {
			defer all.Done()
			t.single(request, idle, sum)
		}()
	}
	all.Wait()
	sum.print(began)
}

func (t *target) single(request []byte, idle chan *connection, sum *tally) {
	var c *connection
	var err error
	select {
	case c = <-idle:
	default:
		if c, err = t.connect(); err != nil {
			sum.add(0, err)
			return
		}
	}
	first, closing, err := c.one(request)
	sum.add(first, err)
	if err != nil || closing {
		c.socket.Close()
		return
	}
	idle <- c
}

const streamsPerSecond = 1000

// streams: so many open streams at a time, each read to its end and checked chunk by chunk.
func streams(arguments []string) {
	var t target
	flags := t.flags("streams")
	count := flags.Int("streams", 64, "open at the same time")
	chunks := flags.Int("chunks", 250, "of one stream")
	rounds := flags.Int("rounds", 2, "streams that each client opens, one after the other")
	interval := flags.Duration("interval", 0, "between two chunks; 0: as the backend has it")
	flags.Parse(arguments)
	request, began, sum := t.request(true, *chunks, interval.Milliseconds()), time.Now(), &tally{}
	var all sync.WaitGroup
	var seen atomic.Int64
	for i := range *count {
		// Not all at the same moment: what is measured is holding streams, not a flood of connections.
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / streamsPerSecond)))
		all.Add(1)
		go func() {
			defer all.Done()
			for range *rounds {
				first, err := t.stream(request, *chunks, &seen)
				sum.add(first, err)
			}
		}()
	}
	all.Wait()
	sum.print(began)
}

func (t *target) stream(request []byte, chunks int, seen *atomic.Int64) (time.Duration, error) {
	c, err := t.connect()
	if err != nil {
		return 0, err
	}
	defer c.socket.Close()
	began := time.Now()
	if _, err = c.socket.Write(request); err != nil {
		return 0, err
	}
	status, length, _, err := c.head()
	if err != nil || status != 200 {
		return 0, fmt.Errorf("status %d: %v", status, err)
	}
	check := checker{seen: seen}
	var first time.Duration
	err = c.body(length, func(piece []byte) {
		if first == 0 {
			first = time.Since(began)
		}
		check.feed(piece)
	})
	if err != nil && err != io.EOF {
		return 0, err
	}
	return first, check.verdict(chunks)
}

// checker reads a stream's events: every token's number, in order, then [DONE], and no comment of the journal.
type checker struct {
	seen *atomic.Int64
	rest []byte
	next int
	done bool
	bad  string
}

var mark = []byte(`"content":" token`)

func (c *checker) feed(piece []byte) {
	c.rest = append(c.rest, piece...)
	for {
		end := bytes.Index(c.rest, []byte("\n\n"))
		if end < 0 {
			return
		}
		c.event(c.rest[:end])
		c.rest = c.rest[end+2:]
	}
}

func (c *checker) event(event []byte) {
	at := bytes.Index(event, mark)
	switch {
	case bytes.HasPrefix(event, []byte("data: [DONE]")):
		c.done = true
	case !bytes.HasPrefix(event, []byte("data: ")):
		c.bad = fmt.Sprintf("not an event: %.80q", event)
	case at >= 0 && len(event) >= at+len(mark)+6:
		number, _ := strconv.Atoi(string(event[at+len(mark) : at+len(mark)+6]))
		if number != c.next {
			c.bad = fmt.Sprintf("token %d where %d was due", number, c.next)
		}
		c.next++
		c.seen.Add(1)
	}
}

func (c *checker) verdict(chunks int) error {
	if c.bad != "" {
		return fmt.Errorf("%s", c.bad)
	}
	if c.next != chunks || !c.done {
		return fmt.Errorf("%d of %d chunks, done: %t", c.next, chunks, c.done)
	}
	return nil
}
