package main

import (
	"slices"
	"sync"
	"time"
)

// handshakes connects, upgrades and closes, and tells how often each status was the answer and how
// long it took from the connect to the answer.
func handshakes(cmd command) (answer, error) {
	d, err := newDialer(cmd.target)
	if err != nil {
		return answer{}, err
	}
	statuses := map[string]int{}
	latencies := make([]int64, cmd.Count)
	resumed := 0
	var lock sync.Mutex
	startedAt := time.Now()
	err = inParallel(cmd.Concurrency, cmd.Count, func(n int) error {
		dialedAt := time.Now()
		conn, status, err := d.dial(cmd.From + n)
		latencies[n] = int64(time.Since(dialedAt))
		if err != nil {
			return err
		}
		lock.Lock()
		statuses[status]++
		if isResumed(conn) {
			resumed++
		}
		lock.Unlock()
		return conn.Close()
	})
	seconds := time.Since(startedAt).Seconds()
	slices.Sort(latencies)
	return answer{
		Statuses: statuses,
		Resumed:  resumed,
		Messages: cmd.Count,
		Seconds:  seconds,
		P50Us:    percentileUs(latencies, 50),
		P99Us:    percentileUs(latencies, 99),
	}, err
}
