// The two ends of the gateway's benchmark in one program: `load backend` stands in for a worker, `load closed`, `load open`
// and `load streams` are clients. Both do as little as they can, so that one core carries them beside a proxy on the other.
// A client prints one JSON object on standard output and checks every answer: a wrong one is an error, never a latency.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fail("usage: load backend|closed|open|streams [flags]")
	}
	commands := map[string]func([]string){"backend": backend, "closed": closed, "open": open, "streams": streams}
	command, known := commands[os.Args[1]]
	if !known {
		fail("unknown command " + os.Args[1] + ": backend, closed, open or streams")
	}
	command(os.Args[2:])
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, "load: "+message)
	os.Exit(2)
}
