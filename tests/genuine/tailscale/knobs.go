package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"tailscale.com/tailcfg"
)

// node is what GET /nodes tells of each node.
type node struct {
	Name     string    `json:"name"`
	Approved bool      `json:"approved"`
	Expiry   time.Time `json:"expiry"` // zero: never
}

// serveKnobs answers on a port of its own: testcontrol panics on any path it does not know.
func (p *plane) serveKnobs(ip string) (string, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		return "", err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /nodes", p.nodes)
	mux.HandleFunc("POST /expiry", knob(p.setExpiry))
	mux.HandleFunc("POST /expire-all", knob(func(r *http.Request) error { p.server.SetExpireAllNodes(true); return nil }))
	mux.HandleFunc("POST /unexpire-all", knob(func(r *http.Request) error { p.server.SetExpireAllNodes(false); return nil }))
	mux.HandleFunc("POST /approve", knob(p.approve))
	mux.HandleFunc("POST /relay/cut", knob(func(*http.Request) error { p.relay.cut(); return nil }))
	mux.HandleFunc("POST /relay/heal", knob(func(*http.Request) error { return p.relay.open() }))
	mux.HandleFunc("POST /control/cut", knob(func(*http.Request) error { p.control.cut(); return nil }))
	mux.HandleFunc("POST /control/heal", knob(func(*http.Request) error { return p.control.open() }))
	go func() { log.Fatal(http.Serve(listener, mux)) }()
	return listener.Addr().String(), nil
}

func knob(turn func(*http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := turn(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

func (p *plane) nodes(w http.ResponseWriter, _ *http.Request) {
	all := []node{}
	for _, n := range p.server.AllNodes() {
		all = append(all, node{Name: n.Name, Approved: n.MachineAuthorized, Expiry: n.KeyExpiry})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(all)
}

// setExpiry gives every node (or those named ?node=NAME) the key expiry now + ?in=DURATION; ?in=never takes it away.
// With a negative duration the node is told a date that has passed.
func (p *plane) setExpiry(r *http.Request) error {
	expiry := time.Time{}
	if in := r.FormValue("in"); in != "never" {
		ahead, err := time.ParseDuration(in)
		if err != nil {
			return fmt.Errorf("in=%q: want a Go duration such as 72h or -1m, or never: %w", in, err)
		}
		expiry = time.Now().Add(ahead).UTC().Truncate(time.Second)
	}
	return p.update(r, func(n *tailcfg.Node) { n.KeyExpiry = expiry })
}

func (p *plane) approve(r *http.Request) error {
	return p.update(r, func(n *tailcfg.Node) { n.MachineAuthorized = true })
}

func (p *plane) update(r *http.Request, change func(*tailcfg.Node)) error {
	name, changed := r.FormValue("node"), 0
	for _, n := range p.server.AllNodes() {
		if name != "" && n.Name != name && n.Name != name+".lab.ts.net." {
			continue
		}
		change(n)
		p.server.UpdateNode(n)
		changed++
	}
	if changed == 0 {
		return fmt.Errorf("no node %q has registered", name)
	}
	return nil
}
