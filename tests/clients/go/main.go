// A client made of the official Go SDK, which does as it is told: a line on standard input is a command, a line
// on standard output is what came of it. The person's part comes from outside: the program prints the address to
// open and reads what the browser brought back. Run by everything.test.mjs.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"
)

const redirectURI = "http://127.0.0.1:53128/callback"

var lines = bufio.NewScanner(os.Stdin)

func say(what any) {
	line, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

// The token as the SDK's own library refreshes it; `expire` makes it look old.
type tokens struct {
	mu      sync.Mutex
	ctx     context.Context
	config  *oauth2.Config
	current *oauth2.Token
	renewed int
}

func (t *tokens) Token() (*oauth2.Token, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	token, err := t.config.TokenSource(t.ctx, t.current).Token()
	if err != nil {
		return nil, err
	}
	if token.AccessToken != t.current.AccessToken {
		t.renewed++
	}
	t.current = token
	return token, nil
}

func (t *tokens) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := *t.current
	old.Expiry = time.Unix(1, 0)
	t.current = &old
}

func main() {
	held := &tokens{}
	asked := 0
	handler, err := auth.NewAuthorizationCodeHandler(&auth.AuthorizationCodeHandlerConfig{
		DynamicClientRegistrationConfig: &auth.DynamicClientRegistrationConfig{
			Metadata: &oauthex.ClientRegistrationMetadata{
				ClientName:              "Go SDK",
				RedirectURIs:            []string{redirectURI},
				GrantTypes:              []string{"authorization_code", "refresh_token"},
				TokenEndpointAuthMethod: "none",
			},
		},
		AuthorizationCodeFetcher: func(_ context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
			asked++
			say(map[string]string{"open": args.URL})
			lines.Scan()
			answer, err := url.ParseQuery(lines.Text())
			if err != nil {
				return nil, err
			}
			if answer.Has("error") {
				return nil, errors.New(answer.Get("error") + ": " + answer.Get("error_description"))
			}
			return &auth.AuthorizationResult{Code: answer.Get("code"), State: answer.Get("state"), Iss: answer.Get("iss")}, nil
		},
		NewTokenSource: func(ctx context.Context, config *oauth2.Config, token *oauth2.Token) (oauth2.TokenSource, error) {
			held.mu.Lock()
			defer held.mu.Unlock()
			held.ctx, held.config, held.current = ctx, config, token
			return held, nil
		},
	})
	if err != nil {
		panic(err)
	}

	ctx := context.Background()
	var session *mcp.ClientSession
	for lines.Scan() {
		var command struct {
			Do        string         `json:"do"`
			URL       string         `json:"url"`
			Tool      string         `json:"tool"`
			Arguments map[string]any `json:"arguments"`
		}
		if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
			panic(err)
		}
		var result any
		var err error
		switch command.Do {
		case "connect":
			client := mcp.NewClient(&mcp.Implementation{Name: "go-sdk", Version: "1.0.0"}, nil)
			session, err = client.Connect(ctx, &mcp.StreamableClientTransport{Endpoint: command.URL, OAuthHandler: handler}, nil)
		case "list":
			result, err = session.ListTools(ctx, nil)
		case "call":
			result, err = session.CallTool(ctx, &mcp.CallToolParams{Name: command.Tool, Arguments: command.Arguments})
		case "ping":
			err = session.Ping(ctx, nil)
		case "expire":
			held.expire()
		case "state":
			result = map[string]any{"asked": asked, "renewed": held.renewed, "session": session.ID()}
		}
		if err != nil {
			say(map[string]string{"error": err.Error()})
			continue
		}
		say(map[string]any{"result": result})
	}
}
