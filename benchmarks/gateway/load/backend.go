package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"time"
)

// The answer that is no stream: what a worker says to a short chat.
const answer = `{"id":"chatcmpl-0123456789abcdef","object":"chat.completion","created":1700000000,"model":"bench",` +
	`"choices":[{"index":0,"message":{"role":"assistant","content":"The capital of France is Paris, a city on the Seine."},` +
	`"finish_reason":"stop","logprobs":null}],"usage":{"prompt_tokens":250,"completion_tokens":12,"total_tokens":262}}`

// Asks for nothing but what the proxy must see: the model, whether to stream, and how many chunks.
type asked struct {
	Stream     bool  `json:"stream"`
	MaxTokens  int   `json:"max_tokens"`
	IntervalMs int64 `json:"seed"` // between two chunks, in the one field that no proxy minds; 0: as the flag says
}

func backend(arguments []string) {
	flags := flag.NewFlagSet("backend", flag.ExitOnError)
	listen := flags.String("listen", "127.0.0.1:9000", "address")
	interval := flags.Duration("interval", 20*time.Millisecond, "between two chunks of a stream")
	flags.Parse(arguments)
	http.HandleFunc("/load", load)
	http.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) })
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { serve(w, r, *interval) })
	server := &http.Server{Addr: *listen}
	fail(server.ListenAndServe().Error())
}

func serve(w http.ResponseWriter, r *http.Request, interval time.Duration) {
	body, err := io.ReadAll(r.Body)
	var wanted asked
	if err != nil || json.Unmarshal(body, &wanted) != nil {
		http.Error(w, "not JSON", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if !wanted.Stream {
		io.WriteString(w, answer)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	if wanted.IntervalMs > 0 {
		interval = time.Duration(wanted.IntervalMs) * time.Millisecond
	}
	running.Add(1)
	defer running.Add(-1)
	stream(w, wanted.MaxTokens, interval, journal(w, r))
}

// chunk number i, about 220 bytes, with its number in the text so that a client can tell order and loss.
func chunk(i int) string {
	return fmt.Sprintf(`data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1700000000,`+
		`"model":"bench","choices":[{"index":0,"delta":{"content":" token%06d"},"finish_reason":null,"logprobs":null}]}`+"\n\n", i)
}

func stream(w http.ResponseWriter, chunks int, interval time.Duration, journalled bool) {
	out := http.NewResponseController(w)
	due := time.Now()
	for i := 0; i < chunks; i++ {
		text := chunk(i)
		if journalled {
			text += note(i)
		}
		io.WriteString(w, text)
		if out.Flush() != nil {
			return
		}
		due = due.Add(interval)
		time.Sleep(time.Until(due))
	}
	last := "data: [DONE]\n\n"
	if journalled {
		last += complete
	}
	io.WriteString(w, last)
}
