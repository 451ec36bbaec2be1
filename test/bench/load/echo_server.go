package main

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"
)

const headBytesMax = 16 << 10

var emptyLine = []byte("\r\n\r\n")

// serveEcho answers upgrades as a gateway does and echoes binary messages. A text message is an order:
// `drain`: from now on binary messages are swallowed; `total`: say how many of their bytes came so far;
// `send COUNT BYTES`: send COUNT binary messages of BYTES bytes.
func serveEcho(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go serveConnection(conn)
	}
}

func serveConnection(conn net.Conn) {
	defer conn.Close()
	if err := acceptUpgrade(conn); err != nil {
		return
	}
	session := session{conn: conn, frames: newFrameReader(conn)}
	for session.step() == nil {
	}
}

// acceptUpgrade reads a request head and answers it with a 101.
func acceptUpgrade(conn net.Conn) error {
	head, err := readHead(conn)
	if err != nil {
		return err
	}
	if !bytes.HasSuffix(head, emptyLine) {
		return errors.New("frames before the answer")
	}
	reader := textproto.NewReader(bufio.NewReader(bytes.NewReader(head)))
	if _, err := reader.ReadLine(); err != nil {
		return err
	}
	fields, err := reader.ReadMIMEHeader()
	if err != nil {
		return err
	}
	if !strings.EqualFold(fields.Get("Upgrade"), "websocket") {
		_, err = conn.Write([]byte("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n"))
		return err
	}
	sum := sha1.Sum([]byte(fields.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"+
		"Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	return err
}

// readHead reads until the empty line has come, and whatever came along with it.
func readHead(conn net.Conn) ([]byte, error) {
	head := make([]byte, 0, 2048)
	for !bytes.Contains(head, emptyLine) {
		if len(head) == cap(head) {
			head = append(head, 0)[:len(head)]
		}
		n, err := conn.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if err != nil {
			return head, err
		}
		if len(head) > headBytesMax {
			return nil, fmt.Errorf("a head of more than %d bytes", headBytesMax)
		}
	}
	return head, nil
}

type session struct {
	conn       net.Conn
	frames     *frameReader
	isDraining bool
	total      int
}

// step answers one frame.
func (s *session) step() error {
	frame, err := s.frames.next()
	if err != nil {
		return err
	}
	switch frame.op {
	case opBinary:
		if s.isDraining {
			s.total += len(frame.payload)
			return nil
		}
		return s.answerOver(frame, opBinary)
	case opText:
		return s.obey(string(frame.payload))
	case opPing:
		return s.answerOver(frame, opPong)
	case opClose:
		if err := s.answerOver(frame, opClose); err != nil {
			return err
		}
		return net.ErrClosed
	}
	return nil
}

// answerOver sends the payload back from where it lies: our header is four bytes shorter.
func (s *session) answerOver(frame frame, op byte) error {
	var header [10]byte
	short := appendHeader(header[:0], op, len(frame.payload), false)
	answer := frame.whole[len(frame.whole)-len(frame.payload)-len(short):]
	copy(answer, short)
	_, err := s.conn.Write(answer)
	return err
}

func (s *session) obey(order string) error {
	var count, size int
	switch {
	case order == "drain":
		s.isDraining = true
		return nil
	case order == "total":
		_, err := s.conn.Write(unmaskedFrame(opText, fmt.Append(nil, s.total)))
		return err
	}
	if _, err := fmt.Sscanf(order, "send %d %d", &count, &size); err != nil {
		return err
	}
	message := unmaskedFrame(opBinary, pattern(size))
	for range count {
		if _, err := s.conn.Write(message); err != nil {
			return err
		}
	}
	return nil
}

// pattern is a payload in which a shifted or repeated piece shows.
func pattern(size int) []byte {
	payload := make([]byte, size)
	for at := range payload {
		payload[at] = byte(at*131 ^ at>>8)
	}
	return payload
}
