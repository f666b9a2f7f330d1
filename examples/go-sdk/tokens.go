package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"github.com/modelcontextprotocol/go-sdk/auth"
	"golang.org/x/time/rate"
)

// What an access token of Portcullis says beyond the registered claims.
type claims struct {
	jwt.RegisteredClaims
	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
}

// verifier returns the checks of access tokens of `issuer` for the server `mcpURL`. It keeps the keys, fetches them
// every five minutes, and looks again for an unknown one, at most twice a minute: anybody can make one up.
func verifier(ctx context.Context, issuer, mcpURL string) (auth.TokenVerifier, error) {
	keys, err := keyfunc.NewDefaultOverrideCtx(ctx, []string{issuer + "/.well-known/jwks.json"}, keyfunc.Override{
		HTTPTimeout:       5 * time.Second,
		RefreshInterval:   5 * time.Minute,
		RefreshUnknownKID: rate.NewLimiter(rate.Every(30*time.Second), 1),
		RateLimitWaitMax:  time.Millisecond, // a minute by default, in which the request would wait
	})
	if err != nil {
		return nil, err
	}
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{"ES256"}), // `token_alg` of the resource
		jwt.WithIssuer(issuer),
		jwt.WithAudience(mcpURL),
		jwt.WithExpirationRequired(),
		jwt.WithLeeway(5*time.Second),
	)
	return func(ctx context.Context, text string, _ *http.Request) (*auth.TokenInfo, error) {
		var found claims
		token, err := parser.ParseWithClaims(text, &found, keys.KeyfuncCtx(ctx))
		if err != nil {
			if known, _ := keys.Storage().KeyReadAll(ctx); len(known) == 0 {
				// Not the token's fault: 500 rather than 401, which would log people out.
				return nil, errors.New("the keys of the authorization server cannot be fetched")
			}
			return nil, fmt.Errorf("%w: %v", auth.ErrInvalidToken, err)
		}
		// The same keys sign other things than access tokens.
		if token.Header["typ"] != "at+jwt" || found.Subject == "" || found.ClientID == "" {
			return nil, fmt.Errorf("%w: not an access token", auth.ErrInvalidToken)
		}
		return &auth.TokenInfo{
			UserID:     found.Subject,
			Scopes:     strings.Fields(found.Scope),
			Expiration: found.ExpiresAt.Time,
			Extra:      map[string]any{"client_id": found.ClientID},
		}, nil
	}, nil
}
