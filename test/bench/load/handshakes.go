package main

import (
	"sync"
	"time"
)

// handshakes connects, upgrades and closes, and tells how often each status was the answer.
func handshakes(cmd command) (answer, error) {
	d, err := newDialer(cmd.target)
	if err != nil {
		return answer{}, err
	}
	statuses := map[string]int{}
	var lock sync.Mutex
	startedAt := time.Now()
	err = inParallel(cmd.Concurrency, cmd.Count, func(n int) error {
		conn, status, err := d.dial(cmd.From + n)
		if err != nil {
			return err
		}
		lock.Lock()
		statuses[status]++
		lock.Unlock()
		return conn.Close()
	})
	return answer{Statuses: statuses, Messages: cmd.Count, Seconds: time.Since(startedAt).Seconds()}, err
}
