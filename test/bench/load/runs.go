package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// replyPieceBytes is how much of a reply is read before it is compared.
	replyPieceBytes = 64 << 10
	// stallTimeout is how long after its time a run may still wait for a byte.
	stallTimeout = 30 * time.Second
	// sendAtOnce is the length of the streams that are asked for again and again, in messages.
	sendAtOnce = 64
)

// untilTimeIsUp runs work on every connection at once; it is over when all have returned.
func untilTimeIsUp(group []*connection, ms int, work func(n int, c *connection, isOver func() bool) error) (float64, error) {
	if len(group) == 0 {
		return 0, fmt.Errorf("the group has no connections")
	}
	length := time.Duration(ms) * time.Millisecond
	for _, each := range group {
		each.conn.SetDeadline(time.Now().Add(length + stallTimeout))
	}
	var over atomic.Bool
	startedAt := time.Now()
	timer := time.AfterFunc(length, func() { over.Store(true) })
	defer timer.Stop()
	err := inParallel(len(group), len(group), func(n int) error { return work(n, group[n], over.Load) })
	return time.Since(startedAt).Seconds(), err
}

// echo sends a message on each connection, waits for it to come back unharmed, and sends the next.
func echo(group []*connection, payloadBytes, ms int) (answer, error) {
	payload := pattern(payloadBytes)
	sent, expected := maskedFrame(opBinary, payload), unmaskedFrame(opBinary, payload)
	latencies := make([][]int64, len(group))
	seconds, err := untilTimeIsUp(group, ms, func(n int, c *connection, isOver func() bool) error {
		piece := make([]byte, min(len(expected), replyPieceBytes))
		for {
			startedAt := time.Now()
			if _, err := c.conn.Write(sent); err != nil {
				return err
			}
			if err := expect(c, expected, piece); err != nil {
				return err
			}
			latencies[n] = append(latencies[n], int64(time.Since(startedAt)))
			if isOver() {
				return nil
			}
		}
	})
	all := slices.Concat(latencies...)
	slices.Sort(all)
	return answer{
		Messages: len(all),
		Bytes:    len(all) * payloadBytes,
		Seconds:  seconds,
		P50Us:    percentileUs(all, 50),
		P99Us:    percentileUs(all, 99),
	}, err
}

// expect reads exactly these bytes.
func expect(c *connection, expected, piece []byte) error {
	for len(expected) > 0 {
		part := piece[:min(len(piece), len(expected))]
		if _, err := io.ReadFull(c.conn, part); err != nil {
			return err
		}
		if !bytes.Equal(part, expected[:len(part)]) {
			return fmt.Errorf("a reply is not what was sent")
		}
		expected = expected[len(part):]
	}
	return nil
}

func percentileUs(sorted []int64, percent float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(percent / 100 * float64(len(sorted))))
	return float64(sorted[max(rank-1, 0)]) / 1000
}

// streamUp sends without a pause and ends when the far end has confirmed that everything arrived.
func streamUp(group []*connection, payloadBytes, ms int) (answer, error) {
	message := maskedFrame(opBinary, pattern(payloadBytes))
	drain, total := maskedFrame(opText, []byte("drain")), maskedFrame(opText, []byte("total"))
	var messages atomic.Int64
	seconds, err := untilTimeIsUp(group, ms, func(_ int, c *connection, isOver func() bool) error {
		if _, err := c.conn.Write(drain); err != nil {
			return err
		}
		before, err := ask(c, total)
		if err != nil {
			return err
		}
		sent := 0
		for ; sent == 0 || !isOver(); sent++ {
			if _, err := c.conn.Write(message); err != nil {
				return err
			}
		}
		messages.Add(int64(sent))
		after, err := ask(c, total)
		if err == nil && after-before != sent*payloadBytes {
			err = fmt.Errorf("%d bytes arrived of %d", after-before, sent*payloadBytes)
		}
		return err
	})
	return streamed(int(messages.Load()), payloadBytes, seconds), err
}

func ask(c *connection, question []byte) (int, error) {
	if _, err := c.conn.Write(question); err != nil {
		return 0, err
	}
	frame, err := c.frames.next()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(frame.payload))
}

// streamDown asks for message after message, and for more before the last have come.
func streamDown(group []*connection, payloadBytes, ms int) (answer, error) {
	more := maskedFrame(opText, fmt.Appendf(nil, "send %d %d", sendAtOnce, payloadBytes))
	expected := unmaskedFrame(opBinary, pattern(payloadBytes))
	var messages atomic.Int64
	seconds, err := untilTimeIsUp(group, ms, func(_ int, c *connection, isOver func() bool) error {
		piece := make([]byte, min(len(expected), replyPieceBytes))
		asked, got := 0, 0
		for {
			for asked < got+2*sendAtOnce && (asked == 0 || !isOver()) {
				if _, err := c.conn.Write(more); err != nil {
					return err
				}
				asked += sendAtOnce
			}
			if got == asked {
				messages.Add(int64(got))
				return nil
			}
			if err := expect(c, expected, piece); err != nil {
				return err
			}
			got++
		}
	})
	return streamed(int(messages.Load()), payloadBytes, seconds), err
}

func streamed(messages, payloadBytes int, seconds float64) answer {
	return answer{Messages: messages, Bytes: messages * payloadBytes, Seconds: seconds}
}
