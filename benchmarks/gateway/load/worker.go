package main

import (
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
)

// What a worker of Foretide says beside its answers; proxies that ask for neither get neither.

const streamHeader = "X-Foretide-Stream"

var running, steps atomic.Int64

// load answers the gateway's question, several times a second, how full the worker is.
func load(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, `{"model":"bench","ready":true,"message":null,"draining":false,"running":`+
		strconv.FormatInt(running.Load(), 10)+`,"waiting":0,"max_num_seqs":16384,"kv_usage":0.1,"utilisation":0.5,"steps":`+
		strconv.FormatInt(steps.Add(1), 10)+`,"stalled_s":0,"step":null,"prefix_queried_tokens":0,"prefix_hit_tokens":0}`)
}

// journal says whether the proxy asked for the tokens of the stream, and promises them if so.
func journal(w http.ResponseWriter, r *http.Request) bool {
	if r.Header.Get(streamHeader) == "" {
		return false
	}
	w.Header().Set(streamHeader, "00000000000000ff")
	return true
}

// note is the comment that ends each write of a journalled stream: the ids of its tokens.
func note(i int) string { return ":" + strconv.Itoa(1000+i) + "\n\n" }

const complete = ":.\n\n"
