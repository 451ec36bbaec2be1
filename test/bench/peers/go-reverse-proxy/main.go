// Command go-reverse-proxy is what kube-rbac-proxy and oauth2-proxy are at heart: the standard
// library's ReverseProxy behind a bearer token that a TokenReview has vouched for.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
)

func main() {
	upstream := flag.String("upstream", "", "URL to forward to; without one a good token is answered with 200")
	apiServer := flag.String("api-server", "", "URL of the API server; without one nobody is asked who he is")
	caFile := flag.String("ca-file", "", "PEM file with the CA of the API server")
	tokenFile := flag.String("token-file", "", "file with the token to ask the API server with")
	audience := flag.String("audience", "openclaw-gateway", "audience a token must be for")
	certFile := flag.String("tls-cert-file", "", "PEM file with the certificate; without one the port is plain")
	keyFile := flag.String("tls-key-file", "", "PEM file with its key")
	flag.Parse()
	go endWithParent()

	handler := answerOK()
	if *upstream != "" {
		to, err := url.Parse(*upstream)
		check(err)
		handler = forward(to)
	}
	if *apiServer != "" {
		reviewer, err := newReviewer(*apiServer, *caFile, *tokenFile, *audience)
		check(err)
		handler = authenticate(reviewer, handler)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr())
	server := &http.Server{
		Handler:  handler,
		ErrorLog: log.New(io.Discard, "", 0),
	}
	if *certFile == "" {
		check(server.Serve(listener))
	}
	check(server.ServeTLS(listener, *certFile, *keyFile))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// endWithParent ends this process when the process that holds its standard input is gone.
func endWithParent() {
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// answerOK tells a proxy that asks before it forwards who the caller is.
func answerOK() http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		response.Header().Set("X-Remote-User", request.Header.Get("X-Remote-User"))
	})
}

func forward(to *url.URL) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(request *httputil.ProxyRequest) {
			request.SetURL(to)
			request.SetXForwarded()
			request.Out.Header.Del("Authorization")
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

func authenticate(reviewer *reviewer, next http.Handler) http.Handler {
	return http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		token, isBearer := strings.CutPrefix(request.Header.Get("Authorization"), "Bearer ")
		if !isBearer {
			http.Error(response, "Unauthorized", http.StatusUnauthorized)
			return
		}
		user, err := reviewer.review(request.Context(), token)
		switch {
		case errors.Is(err, errUnauthenticated):
			http.Error(response, "Unauthorized", http.StatusUnauthorized)
		case err != nil:
			http.Error(response, "Service Unavailable", http.StatusServiceUnavailable)
		default:
			request.Header.Set("X-Remote-User", user)
			next.ServeHTTP(response, request)
		}
	})
}
