package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	cacheTTL        = time.Minute
	cacheEntriesMax = 20_000
	reviewsAtOnce   = 64
	reviewTimeout   = 3 * time.Second
)

var errUnauthenticated = errors.New("the API server does not know this token")

// reviewer asks the API server who a token is, and remembers its good answers for a while.
type reviewer struct {
	url, token, audience string
	client               *http.Client

	lock  sync.Mutex
	cache map[[sha256.Size]byte]verdict
}

type verdict struct {
	user    string
	expires time.Time
}

type tokenReview struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		Token     string   `json:"token"`
		Audiences []string `json:"audiences"`
	} `json:"spec"`
	Status struct {
		Authenticated bool     `json:"authenticated"`
		Audiences     []string `json:"audiences"`
		User          struct {
			Username string `json:"username"`
		} `json:"user"`
	} `json:"status"`
}

func newReviewer(apiServer, caFile, tokenFile, audience string) (*reviewer, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	token, err := os.ReadFile(tokenFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &reviewer{
		url:      apiServer + "/apis/authentication.k8s.io/v1/tokenreviews",
		token:    strings.TrimSpace(string(token)),
		audience: audience,
		client: &http.Client{Timeout: reviewTimeout, Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: roots},
			MaxIdleConnsPerHost: reviewsAtOnce,
		}},
		cache: map[[sha256.Size]byte]verdict{},
	}, nil
}

func (r *reviewer) review(ctx context.Context, token string) (string, error) {
	key := sha256.Sum256([]byte(token))
	if user, isKnown := r.recall(key); isKnown {
		return user, nil
	}
	user, err := r.ask(ctx, token)
	if err == nil {
		r.remember(key, user)
	}
	return user, err
}

func (r *reviewer) recall(key [sha256.Size]byte) (string, bool) {
	r.lock.Lock()
	defer r.lock.Unlock()
	found, isThere := r.cache[key]
	return found.user, isThere && time.Now().Before(found.expires)
}

func (r *reviewer) remember(key [sha256.Size]byte, user string) {
	r.lock.Lock()
	defer r.lock.Unlock()
	if len(r.cache) >= cacheEntriesMax {
		clear(r.cache)
	}
	r.cache[key] = verdict{user, time.Now().Add(cacheTTL)}
}

func (r *reviewer) ask(ctx context.Context, token string) (string, error) {
	var review tokenReview
	review.APIVersion, review.Kind = "authentication.k8s.io/v1", "TokenReview"
	review.Spec.Token, review.Spec.Audiences = token, []string{r.audience}
	body, err := json.Marshal(review)
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+r.token)
	request.Header.Set("Content-Type", "application/json")
	response, err := r.client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("the API server answered %d", response.StatusCode)
	}
	var answer tokenReview
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return "", err
	}
	if !answer.Status.Authenticated || !slices.Contains(answer.Status.Audiences, r.audience) {
		return "", errUnauthenticated
	}
	return answer.Status.User.Username, nil
}
