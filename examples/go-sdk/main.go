// A greeter, with the official Go SDK in front of golang-jwt and keyfunc as verifiers of Portcullis' tokens.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"slices"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
)

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

type nothing struct{}

type announcement struct {
	Text string `json:"text"`
}

func say(text string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}
}

// refused returns what a tool says to somebody who lacks a permission, and nothing to anybody else.
func refused(request *mcp.CallToolRequest, permission string) *mcp.CallToolResult {
	if slices.Contains(request.Extra.TokenInfo.Scopes, permission) {
		return nil
	}
	result := say("This needs the permission " + permission + ".")
	result.IsError = true
	return result
}

func greet(_ context.Context, request *mcp.CallToolRequest, _ nothing) (*mcp.CallToolResult, any, error) {
	if result := refused(request, "greet"); result != nil {
		return result, nil, nil
	}
	return say("Hello, " + request.Extra.TokenInfo.UserID + "."), nil, nil
}

func announce(_ context.Context, request *mcp.CallToolRequest, input announcement) (*mcp.CallToolResult, any, error) {
	if result := refused(request, "announce"); result != nil {
		return result, nil, nil
	}
	return say("Everybody hears: " + input.Text), nil, nil
}

func main() {
	port := setting("PORT", "9009")
	mcpURL := setting("MCP_URL", "http://127.0.0.1:"+port+"/mcp") // `id` of the resource, byte for byte
	issuer := setting("ISSUER", "http://127.0.0.1:8000")          // `public_url` of Portcullis, byte for byte

	server := mcp.NewServer(&mcp.Implementation{Name: "greeter", Version: "1.0.0"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "greet", Description: "Says hello to you."}, greet)
	mcp.AddTool(server, &mcp.Tool{Name: "announce", Description: "Tells everybody something."}, announce)

	verify, err := verifier(context.Background(), issuer, mcpURL)
	if err != nil {
		log.Fatal(err)
	}
	at, err := url.Parse(mcpURL)
	if err != nil {
		log.Fatal(err)
	}
	metadata := "/.well-known/oauth-protected-resource" + at.Path
	protected := auth.RequireBearerToken(verify, &auth.RequireBearerTokenOptions{
		ResourceMetadataURL: fmt.Sprintf("%s://%s%s", at.Scheme, at.Host, metadata),
		// No Scopes: they would be the `scope` of the first 401, and clients would ask for nothing else.
	})
	http.Handle(metadata, auth.ProtectedResourceMetadataHandler(&oauthex.ProtectedResourceMetadata{
		Resource:             mcpURL,
		AuthorizationServers: []string{issuer},
		ScopesSupported:      []string{"greet", "announce"},
	}))
	http.Handle(at.Path, protected(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil)))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+port, nil))
}
