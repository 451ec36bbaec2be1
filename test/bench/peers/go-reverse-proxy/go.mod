module bench/go-reverse-proxy

go 1.22
