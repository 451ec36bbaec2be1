package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
)

// command is one line of the standard input; each is answered by one line, in order.
type command struct {
	Do string `json:"do"`
	// Group names a set of open connections.
	Group string `json:"group"`
	target
	Connections int    `json:"connections"`
	AtOnce      int    `json:"atOnce"`
	Payload     int    `json:"payloadBytes"`
	Direction   string `json:"direction"`
	Millis      int    `json:"ms"`
	From        int    `json:"from"`
	Count       int    `json:"count"`
	Concurrency int    `json:"concurrency"`
}

type answer struct {
	Error    string         `json:"error,omitempty"`
	Messages int            `json:"messages"`
	Bytes    int            `json:"bytes"`
	Seconds  float64        `json:"seconds"`
	P50Us    float64        `json:"p50Us"`
	P99Us    float64        `json:"p99Us"`
	Statuses map[string]int `json:"statuses,omitempty"`
	// Resumed is how many handshakes resumed a TLS session.
	Resumed int `json:"resumed,omitempty"`
}

// obey carries out commands until the input ends.
func obey(in io.Reader, out io.Writer) error {
	groups := map[string][]*connection{}
	lines := bufio.NewScanner(in)
	answers := json.NewEncoder(out)
	for lines.Scan() {
		var cmd command
		if err := json.Unmarshal(lines.Bytes(), &cmd); err != nil {
			return err
		}
		reply, err := carryOut(cmd, groups)
		if err != nil {
			reply.Error = err.Error()
		}
		if err := answers.Encode(reply); err != nil {
			return err
		}
	}
	return lines.Err()
}

func carryOut(cmd command, groups map[string][]*connection) (answer, error) {
	group := groups[cmd.Group]
	switch cmd.Do {
	case "open":
		opened, err := openMany(cmd, len(group))
		groups[cmd.Group] = append(group, opened...)
		return answer{}, err
	case "close":
		for _, each := range group {
			each.conn.Close()
		}
		delete(groups, cmd.Group)
		return answer{}, nil
	case "echo":
		return echo(group, cmd.Payload, cmd.Millis)
	case "stream":
		if cmd.Direction == "up" {
			return streamUp(group, cmd.Payload, cmd.Millis)
		}
		return streamDown(group, cmd.Payload, cmd.Millis)
	case "handshakes":
		return handshakes(cmd)
	}
	return answer{}, fmt.Errorf("there is no command %q", cmd.Do)
}
