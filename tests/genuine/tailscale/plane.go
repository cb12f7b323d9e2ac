package main

import (
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"

	"tailscale.com/derp/derpserver"
	"tailscale.com/net/stun"
	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

// plane is the control server with its relay. Each of the two can be cut off and brought back at the same address,
// as a dead and a mended server would be.
type plane struct {
	server  *testcontrol.Server
	control *cuttable
	relay   *cuttable
}

func newPlane(ip, authKey string, approval, verbose bool) (*plane, error) {
	stunPort, err := serveSTUN(ip)
	if err != nil {
		return nil, err
	}
	relay, err := newCuttable(ip)
	if err != nil {
		return nil, err
	}
	control, err := newCuttable(ip)
	if err != nil {
		return nil, err
	}
	quiet := logger.Discard
	if verbose {
		quiet = log.Printf
	}
	p := &plane{control: control, relay: relay}
	p.server = &testcontrol.Server{
		Logf:               quiet,
		DERPMap:            derpMap(ip, relay.port, stunPort),
		RequireAuthKey:     authKey,
		RequireMachineAuth: approval,
		Verbose:            verbose,
		MagicDNSDomain:     "lab.ts.net",
		DNSConfig:          &tailcfg.DNSConfig{},
		ExplicitBaseURL:    fmt.Sprintf("http://%s", control.address()),
	}
	derp := derpserver.New(key.NewNode(), quiet)
	relay.handler, relay.tls = derpserver.Handler(derp), true
	control.handler = p.server
	return p, firstError(relay.open(), control.open())
}

// cuttable is an HTTP server whose listener and connections can be dropped at once (hijacked ones too, which
// http.Server forgets), and that comes back on the same port.
type cuttable struct {
	ip      string
	port    int
	handler http.Handler
	tls     bool

	mu       sync.Mutex
	listener net.Listener // nil while cut
	server   *httptest.Server
	conns    map[net.Conn]struct{}
}

// newCuttable takes a free port, so that the address is known before anything is served.
func newCuttable(ip string) (*cuttable, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		return nil, err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	return &cuttable{ip: ip, port: port, listener: listener}, nil
}

func (c *cuttable) address() string { return net.JoinHostPort(c.ip, fmt.Sprint(c.port)) }

func (c *cuttable) open() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server != nil {
		return nil
	}
	if c.listener == nil {
		listener, err := net.Listen("tcp", c.address())
		if err != nil {
			return err
		}
		c.listener = listener
	}
	c.conns = map[net.Conn]struct{}{}
	server := httptest.NewUnstartedServer(c.handler)
	server.Listener.Close()
	server.Listener = tracking{c.listener, c}
	server.Config.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){} // no HTTP/2: DERP upgrades
	if c.tls {
		server.StartTLS()
	} else {
		server.Start()
	}
	c.server = server
	return nil
}

func (c *cuttable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return
	}
	c.listener.Close()
	for conn := range c.conns {
		conn.Close()
	}
	c.listener, c.server, c.conns = nil, nil, nil
}

// tracking remembers the connections that its listener accepted.
type tracking struct {
	net.Listener
	owner *cuttable
}

func (t tracking) Accept() (net.Conn, error) {
	conn, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t.owner.mu.Lock()
	defer t.owner.mu.Unlock()
	if t.owner.conns == nil {
		conn.Close()
		return nil, net.ErrClosed
	}
	t.owner.conns[conn] = struct{}{}
	return conn, nil
}

// serveSTUN answers binding requests: what tailscaled needs to learn its own address. (Tailscale's own test helper
// for it wants a testing.T.)
func serveSTUN(ip string) (int, error) {
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		return 0, err
	}
	go func() {
		var buf [1500]byte
		for {
			n, from, err := socket.ReadFromUDPAddrPort(buf[:])
			if err != nil {
				return
			}
			if id, err := stun.ParseBindingRequest(buf[:n]); err == nil {
				_, _ = socket.WriteToUDPAddrPort(stun.Response(id, from), from)
			}
		}
	}()
	return socket.LocalAddr().(*net.UDPAddr).Port, nil
}

func derpMap(ip string, derpPort, stunPort int) *tailcfg.DERPMap {
	node := &tailcfg.DERPNode{
		Name: "lab1", RegionID: 1, HostName: ip, IPv4: ip, IPv6: "none", STUNPort: stunPort, DERPPort: derpPort,
		InsecureForTests: true, STUNTestIP: ip,
	}
	region := &tailcfg.DERPRegion{RegionID: 1, RegionCode: "lab", RegionName: "Lab", Nodes: []*tailcfg.DERPNode{node}}
	return &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{1: region}}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
