package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// openAtOnce is how many handshakes are under way while connections are opened, if not told.
	openAtOnce   = 64
	dialTimeout  = 30 * time.Second
	websocketKey = "dGhlIHNhbXBsZSBub25jZQ=="
	// acceptLine answers websocketKey (RFC 6455 §1.3).
	acceptLine = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
	// ipBindAddressNoPort leaves the choice of the port to connect, so that ports of one address can
	// serve several targets.
	ipBindAddressNoPort = 24
)

// target is where to connect, and as whom.
type target struct {
	Address string `json:"address"`
	// CAFile makes it a TLS connection.
	CAFile string `json:"caFile"`
	// ResumesTLS resumes a session of an earlier handshake with the same address, if there is one.
	ResumesTLS bool `json:"resumesTls"`
	// Credentials is a file of lines `SOURCE-ADDRESS TOKEN`, used in turn.
	Credentials string `json:"credentials"`
}

type connection struct {
	conn   net.Conn
	frames *frameReader
}

// dialer holds what of a target is read from files.
type dialer struct {
	address     string
	tls         *tls.Config
	credentials []credential
}

type credential struct {
	source  net.IP
	request []byte
}

func newDialer(to target) (*dialer, error) {
	d := &dialer{address: to.Address}
	if to.CAFile != "" {
		ca, err := os.ReadFile(to.CAFile)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca)
		d.tls = &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{"http/1.1"}}
		if to.ResumesTLS {
			d.tls.ClientSessionCache = sessionOf(to.Address)
		}
	}
	text, err := os.ReadFile(to.Credentials)
	if err != nil {
		return nil, err
	}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		source, token, _ := strings.Cut(line, " ")
		d.credentials = append(d.credentials, credential{net.ParseIP(source), []byte(
			"GET / HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
				"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + websocketKey +
				"\r\nAuthorization: Bearer " + token + "\r\n\r\n")})
	}
	return d, nil
}

// dial connects as the nth credential says and returns the status of the answer with the connection.
func (d *dialer) dial(n int) (net.Conn, string, error) {
	credential := d.credentials[n%len(d.credentials)]
	plain := net.Dialer{
		Timeout:   dialTimeout,
		LocalAddr: &net.TCPAddr{IP: credential.source},
		Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) {
				syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
			})
		},
	}
	conn, err := plain.DialContext(context.Background(), "tcp", d.address)
	if err != nil {
		return nil, "", err
	}
	if d.tls != nil {
		conn = tls.Client(conn, d.tls)
	}
	conn.SetDeadline(time.Now().Add(dialTimeout))
	status, err := upgrade(conn, credential.request)
	if err != nil {
		conn.Close()
		return nil, "", err
	}
	conn.SetDeadline(time.Time{})
	return conn, status, nil
}

func upgrade(conn net.Conn, request []byte) (string, error) {
	if _, err := conn.Write(request); err != nil {
		return "", err
	}
	received, err := readHead(conn)
	head := string(received)
	if len(head) < len("HTTP/1.1 101") {
		return "", fmt.Errorf("no answer: %w", err)
	}
	status := head[9:12]
	if status == "101" && (err != nil || !strings.Contains(head, acceptLine)) {
		return "", fmt.Errorf("a 101 with a wrong head")
	}
	return status, nil
}

// openMany opens the connections of a command, the first of them with the credential number from.
func openMany(cmd command, from int) ([]*connection, error) {
	d, err := newDialer(cmd.target)
	if err != nil {
		return nil, err
	}
	opened := make([]*connection, cmd.Connections)
	err = inParallel(cmp.Or(cmd.AtOnce, openAtOnce), cmd.Connections, func(n int) error {
		conn, status, err := d.dial(from + n)
		if err != nil {
			return err
		}
		if status != "101" {
			conn.Close()
			return fmt.Errorf("the upgrade was answered with %s", status)
		}
		opened[n] = &connection{conn, newFrameReader(conn)}
		return nil
	})
	if err != nil {
		for _, each := range opened {
			if each != nil {
				each.conn.Close()
			}
		}
		return nil, err
	}
	return opened, nil
}

// inParallel runs count jobs, at most atOnce at a time, and returns the first error.
func inParallel(atOnce, count int, job func(n int) error) error {
	var next atomic.Int64
	var workers sync.WaitGroup
	var failed atomic.Pointer[error]
	for range min(atOnce, count) {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for n := int(next.Add(1)) - 1; n < count && failed.Load() == nil; n = int(next.Add(1)) - 1 {
				if err := job(n); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		}()
	}
	workers.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
