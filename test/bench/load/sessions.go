package main

import (
	"crypto/tls"
	"net"
	"sync/atomic"
)

// lastSession is the newest TLS session of a server. Unlike the cache of crypto/tls it gives a ticket
// of TLS 1.3 out again: Node's server sends none when a session is resumed.
type lastSession struct {
	atomic.Pointer[tls.ClientSessionState]
}

var sessions = map[string]*lastSession{}

// sessionOf is the session of an address; commands come one after the other.
func sessionOf(address string) *lastSession {
	if sessions[address] == nil {
		sessions[address] = &lastSession{}
	}
	return sessions[address]
}

func (s *lastSession) Get(string) (*tls.ClientSessionState, bool) {
	session := s.Load()
	return session, session != nil
}

// Put is told to forget a ticket that was used, with nil.
func (s *lastSession) Put(_ string, session *tls.ClientSessionState) {
	if session != nil {
		s.Store(session)
	}
}

// isResumed tells whether a connection resumed a TLS session.
func isResumed(conn net.Conn) bool {
	secure, isTLS := conn.(*tls.Conn)
	return isTLS && secure.ConnectionState().DidResume
}
