// A Tailscale control plane for the tests: Tailscale's own in-memory testcontrol server, one relay (DERP) and one
// STUN server, steered by plain HTTP POSTs ("knobs") on a listener of their own.
//
// It decides nothing by itself, keeps nothing on disk, and is no test: whoever starts it asks the genuine tailscaled
// what it makes of all this. It prints one JSON line with its addresses when it is ready, and ends when its standard
// input is closed, so that it never outlives the test that started it.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
)

// addresses is the one line on standard output that says "ready".
type addresses struct {
	Login string `json:"login"` // what `tailscale up --login-server` wants
	Knobs string `json:"knobs"` // where the knobs are
}

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	ip := flag.String("ip", "127.0.0.1", "address that tailscaled reaches this process at")
	authKey := flag.String("auth-key", "", "register only nodes that bring this key (empty: every node)")
	approval := flag.Bool("require-approval", false, "new nodes wait until /approve")
	verbose := flag.Bool("verbose", false, "log every message of the control protocol to standard error")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("unexpected argument %q", flag.Arg(0))
	}
	if net.ParseIP(*ip) == nil {
		log.Fatalf("-ip %q is no IP address", *ip)
	}

	plane, err := newPlane(*ip, *authKey, *approval, *verbose)
	if err != nil {
		log.Fatal(err)
	}
	knobs, err := plane.serveKnobs(*ip)
	if err != nil {
		log.Fatal(err)
	}
	line, err := json.Marshal(addresses{Login: plane.server.ExplicitBaseURL, Knobs: knobs})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(line))
	// Bounded by the test's life, whatever way it ends.
	_, _ = io.Copy(io.Discard, os.Stdin)
}
