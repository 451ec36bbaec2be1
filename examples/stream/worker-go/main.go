// A worker in Go: sends its pod's token and a hello, prints the echo, and reconnects.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

const (
	backoffMax = 30 * time.Second
	connectMax = 10 * time.Second
	// The sidecar pings a silent worker every 20 s (limits.idlePing).
	silenceMax = 90 * time.Second
)

var (
	gatewayURL = cmp.Or(os.Getenv("GATEWAY_URL"), "ws://openclaw-gateway:18789")
	tokenFile  = cmp.Or(os.Getenv("TOKEN_FILE"), "/var/run/secrets/openclaw/token")
	// A separate transport: the default one would reveal the token to HTTP_PROXY.
	client = &http.Client{Transport: &http.Transport{}}
)

type ending struct {
	why string
	// The worker was refused: another try would fail the same way.
	isFinal bool
	// The other side restarts: a replacement is ready.
	isRestart   bool
	hasReceived bool
}

// runStream runs one stream, from the connection to its end.
func runStream() ending {
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return ending{why: err.Error()}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	silence := time.AfterFunc(connectMax, cancel)
	defer silence.Stop()
	stream, response, err := websocket.Dial(ctx, gatewayURL, &websocket.DialOptions{
		HTTPClient: client,
		HTTPHeader: http.Header{"Authorization": {"Bearer " + strings.TrimSpace(string(token))}},
		OnPingReceived: func(context.Context, []byte) bool {
			silence.Reset(silenceMax)
			return true
		},
	})
	if err != nil {
		return ending{why: err.Error(), isFinal: response != nil && isRefusal(response.StatusCode)}
	}
	defer stream.CloseNow()
	silence.Reset(silenceMax)
	err = stream.Write(ctx, websocket.MessageText, []byte("hello from Go"))
	hasReceived := false
	for err == nil {
		var message []byte
		if _, message, err = stream.Read(ctx); err == nil {
			hasReceived = true
			silence.Reset(silenceMax)
			fmt.Printf("received: %s\n", message)
		}
	}
	var closed websocket.CloseError
	if !errors.As(err, &closed) {
		return ending{why: err.Error(), hasReceived: hasReceived}
	}
	return ending{
		why:         fmt.Sprintf("%d %s", closed.Code, closed.Reason),
		isFinal:     closed.Code == websocket.StatusPolicyViolation && closed.Reason != "token_expired",
		isRestart:   closed.Code == websocket.StatusServiceRestart,
		hasReceived: hasReceived,
	}
}

func isRefusal(status int) bool {
	return status >= 400 && status < 500 &&
		status != http.StatusRequestTimeout && status != http.StatusTooManyRequests
}

func main() {
	backoffMs, err := strconv.Atoi(cmp.Or(os.Getenv("BACKOFF_MS"), "1000"))
	if err != nil || backoffMs <= 0 {
		fmt.Println("BACKOFF_MS must be a number of milliseconds")
		os.Exit(64)
	}
	first := time.Duration(backoffMs) * time.Millisecond
	longest := first
	for {
		end := runStream()
		fmt.Printf("closed: %s\n", end.why)
		if end.isFinal {
			os.Exit(1)
		}
		if end.hasReceived || end.isRestart {
			longest = first
		}
		time.Sleep(rand.N(longest))
		longest = min(longest*2, backoffMax)
	}
}
