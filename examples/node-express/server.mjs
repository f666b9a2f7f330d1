// A greeter, with @modelcontextprotocol/express in front of jose as the verifier of Portcullis' tokens.

import { createMcpExpressApp, getOAuthProtectedResourceMetadataUrl, mcpAuthMetadataRouter, requireBearerAuth } from "@modelcontextprotocol/express";
import { toNodeHandler } from "@modelcontextprotocol/node";
import { McpServer, OAuthError, OAuthErrorCode, createMcpHandler, requireScopes } from "@modelcontextprotocol/server";
import { createRemoteJWKSet, errors, jwtVerify } from "jose";
import { z } from "zod";

const PORT = Number(process.env.PORT ?? 9008);
const MCP_URL = process.env.MCP_URL ?? `http://127.0.0.1:${PORT}/mcp`; // `id` of the resource, byte for byte
const ISSUER = process.env.ISSUER ?? "http://127.0.0.1:8000"; // `public_url` of Portcullis, byte for byte
const OAUTH_METADATA = `${ISSUER}/.well-known/oauth-authorization-server`;

// Keeps the keys for five minutes, and looks again for an unknown one, at most twice a minute.
const keys = createRemoteJWKSet(new URL(`${ISSUER}/.well-known/jwks.json`), { cacheMaxAge: 300_000, cooldownDuration: 30_000 });
const BAD_TOKEN = [errors.JWTClaimValidationFailed, errors.JWTExpired, errors.JWTInvalid, errors.JWSInvalid,
  errors.JWSSignatureVerificationFailed, errors.JOSEAlgNotAllowed, errors.JOSENotSupported, errors.JWKSNoMatchingKey];

async function verifyAccessToken(token) {
  try {
    const { payload } = await jwtVerify(token, keys, {
      issuer: ISSUER,
      audience: MCP_URL,
      typ: "at+jwt", // the same keys sign other things than access tokens
      algorithms: ["ES256"], // `token_alg` of the resource
      requiredClaims: ["exp", "sub", "client_id"],
      clockTolerance: 5,
    });
    return {
      token,
      clientId: payload.client_id,
      scopes: payload.scope.split(" "),
      expiresAt: payload.exp,
      resource: new URL(payload.aud),
      extra: { subject: payload.sub },
    };
  } catch (error) {
    if (BAD_TOKEN.some((kind) => error instanceof kind)) throw new OAuthError(OAuthErrorCode.InvalidToken, error.message);
    throw error; // The keys cannot be fetched: 500 rather than 401, which would log people out.
  }
}

// One for each request, made for who calls.
function greeter({ authInfo: { scopes, extra } }) {
  const server = new McpServer({ name: "greeter", version: "1.0.0" });
  const say = (text, isError = false) => ({ content: [{ type: "text", text }], isError });
  // What everybody may have is a challenge, for which a client signs in again; what few may have, the tool says.
  server.registerTool("greet", { description: "Says hello to you.", scopeChallenge: requireScopes("greet") }, () => say(`Hello, ${extra.subject}.`));
  server.registerTool("announce", {
    description: "Tells everybody something.",
    inputSchema: z.object({ text: z.string() }),
  }, ({ text }) => (scopes.includes("announce") ? say(`Everybody hears: ${text}`) : say("This needs the permission announce.", true)));
  return server;
}

// The SDK publishes the authorization server's metadata beside its own, so it wants them at the start.
async function oauthMetadata() {
  for (;;) {
    const answer = await fetch(OAUTH_METADATA).catch(() => undefined);
    if (answer?.ok) return answer.json();
    console.error(`${OAUTH_METADATA} does not answer yet`);
    await new Promise((resolve) => setTimeout(resolve, 2000));
  }
}

const app = createMcpExpressApp({ allowedHosts: [new URL(MCP_URL).hostname] });
app.use(mcpAuthMetadataRouter({
  oauthMetadata: await oauthMetadata(),
  resourceServerUrl: new URL(MCP_URL),
  resourceName: "Greeter (Node)",
  scopesSupported: ["greet", "announce"],
}));
const protect = requireBearerAuth({
  verifier: { verifyAccessToken },
  resourceMetadataUrl: getOAuthProtectedResourceMetadataUrl(new URL(MCP_URL)),
  expectedResource: new URL(MCP_URL),
});
const handle = toNodeHandler(createMcpHandler(greeter));
app.all(new URL(MCP_URL).pathname, protect, (request, response) => handle(request, response, request.body));
app.listen(PORT, "127.0.0.1");
