package main

import (
	"encoding/binary"
	"errors"
	"net"
)

// Opcodes of RFC 6455 §5.2.
const (
	opText   = 1
	opBinary = 2
	opClose  = 8
	opPing   = 9
	opPong   = 10
)

const (
	maskKey         = 0x9d3c5fa7
	readBufferBytes = 4096
	frameBytesMax   = 64 << 20
)

var errFrame = errors.New("a frame nobody here sends")

// appendHeader appends the header of a final frame, without a mask key.
func appendHeader(to []byte, op byte, length int, masked bool) []byte {
	var mask byte
	if masked {
		mask = 0x80
	}
	to = append(to, 0x80|op)
	switch {
	case length < 126:
		return append(to, mask|byte(length))
	case length < 1<<16:
		return binary.BigEndian.AppendUint16(append(to, mask|126), uint16(length))
	default:
		return binary.BigEndian.AppendUint64(append(to, mask|127), uint64(length))
	}
}

// unmaskedFrame is a frame as a server sends it.
func unmaskedFrame(op byte, payload []byte) []byte {
	return append(appendHeader(nil, op, len(payload), false), payload...)
}

// maskedFrame is a frame as a client sends it.
func maskedFrame(op byte, payload []byte) []byte {
	frame := binary.LittleEndian.AppendUint32(appendHeader(nil, op, len(payload), true), maskKey)
	at := len(frame)
	frame = append(frame, payload...)
	mask(frame[at:], maskKey)
	return frame
}

// mask masks and unmasks in place; key is the four bytes read as little-endian.
func mask(payload []byte, key uint32) {
	wide := uint64(key)<<32 | uint64(key)
	for len(payload) >= 8 {
		binary.LittleEndian.PutUint64(payload, binary.LittleEndian.Uint64(payload)^wide)
		payload = payload[8:]
	}
	for at := range payload {
		payload[at] ^= byte(key >> (8 * (at & 3)))
	}
}

// frame is one frame as received, unmasked. It is good until the next is asked for.
type frame struct {
	op      byte
	payload []byte
	// whole starts with the header, so that an answer can be written over it.
	whole []byte
}

// frameReader reads frames through a buffer that grows to the largest of them.
type frameReader struct {
	conn       net.Conn
	buffer     []byte
	start, end int
}

func newFrameReader(conn net.Conn) *frameReader {
	return &frameReader{conn: conn, buffer: make([]byte, readBufferBytes)}
}

func (r *frameReader) next() (frame, error) {
	if err := r.fill(2); err != nil {
		return frame{}, err
	}
	head := r.buffer[r.start:]
	if head[0]&0xf0 != 0x80 {
		return frame{}, errFrame
	}
	op, length, headerBytes := head[0]&0x0f, int(head[1]&0x7f), 2
	switch length {
	case 126:
		headerBytes = 4
	case 127:
		headerBytes = 10
	}
	isMasked := head[1]&0x80 != 0
	keyAt := headerBytes
	if isMasked {
		headerBytes += 4
	}
	if err := r.fill(headerBytes); err != nil {
		return frame{}, err
	}
	head = r.buffer[r.start:]
	switch length {
	case 126:
		length = int(binary.BigEndian.Uint16(head[2:]))
	case 127:
		length = int(binary.BigEndian.Uint64(head[2:]))
	}
	if length > frameBytesMax {
		return frame{}, errFrame
	}
	if err := r.fill(headerBytes + length); err != nil {
		return frame{}, err
	}
	whole := r.buffer[r.start : r.start+headerBytes+length]
	r.start += len(whole)
	if isMasked {
		mask(whole[headerBytes:], binary.LittleEndian.Uint32(whole[keyAt:]))
	}
	return frame{op: op, payload: whole[headerBytes:], whole: whole}, nil
}

// fill reads until at least that many bytes are buffered.
func (r *frameReader) fill(bytes int) error {
	if r.end-r.start >= bytes {
		return nil
	}
	if r.start == r.end {
		r.start, r.end = 0, 0
	}
	if r.start+bytes > len(r.buffer) {
		to := r.buffer
		if bytes > len(to) {
			to = make([]byte, bytes+readBufferBytes)
		}
		r.end = copy(to, r.buffer[r.start:r.end])
		r.start, r.buffer = 0, to
	}
	for r.end-r.start < bytes {
		n, err := r.conn.Read(r.buffer[r.end:])
		r.end += n
		if err != nil {
			return err
		}
	}
	return nil
}
