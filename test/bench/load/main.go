// Command load is both ends of a measurement: `load echo-server ADDRESS` stands in for the gateway,
// and `load client` opens connections and drives them as the lines on its standard input say.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "echo-server":
		go endWithParent()
		err = serveEcho(os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == "client":
		err = obey(os.Stdin, os.Stdout)
	default:
		err = fmt.Errorf("usage: load echo-server ADDRESS | load client")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// endWithParent ends this process when the process that holds its standard input is gone.
func endWithParent() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}
