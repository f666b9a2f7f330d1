// npm's oidc-provider as three kinds of provider. Arguments: flavour, port, redirect URI of Portcullis.
// GET /asked/<person> says how often a refresh token of that person was accepted.

import { createServer } from "node:http";
import Provider, { errors } from "oidc-provider";

const [flavour, port, redirectUri] = process.argv.slice(2);
const origin = `http://127.0.0.1:${port}`;
const isAdmin = (id) => id === "alice";

// Okta and Auth0 give refresh tokens without prompt=consent; oidc-provider by itself does not.
const refreshWithoutConsent = {
  issueRefreshToken: (_, client) => client.grantTypeAllowed("refresh_token"),
  expiresWithSession: () => false,
};
function requireAudience(_, audience) {
  if (audience !== "https://todo.example/mcp") throw new errors.InvalidRequest("audience is missing");
}

const flavours = {
  // An Okta custom authorization server: a path in the issuer, groups in the ID token, and one refresh
  // token for the whole session.
  "okta-like": {
    issuer: `${origin}/oauth2/default`,
    mount: "/oauth2/default",
    claims: (id) => ({ groups: isAdmin(id) ? ["Todo Admins", "Everyone"] : ["Everyone"] }),
    names: ["groups"],
    options: { ...refreshWithoutConsent, rotateRefreshToken: false },
  },
  // Auth0: a slash at the end of the issuer, roles under a name of one's own, an audience.
  "auth0-like": {
    issuer: `${origin}/`,
    mount: "",
    claims: (id) => ({ "https://acme.example/roles": [isAdmin(id) ? "Admin" : "User"] }),
    names: ["https://acme.example/roles"],
    options: { ...refreshWithoutConsent, rotateRefreshToken: true, extraParams: { audience: requireAudience } },
  },
  // Every refresh token works once; its second use ends the grant. No refresh token without prompt=consent.
  "strict-rotation": {
    issuer: origin,
    mount: "",
    claims: (id) => ({ roles: [isAdmin(id) ? "Admin" : "User"] }),
    names: ["roles"],
    options: { rotateRefreshToken: true },
  },
  // ID tokens that prove nothing: whoever knows the client secret can make them.
  "hs256-only": {
    issuer: origin,
    mount: "",
    claims: () => ({}),
    names: [],
    options: { enabledJWA: { idTokenSigningAlgValues: ["HS256"] } },
    client: { id_token_signed_response_alg: "HS256" },
  },
};
const chosen = flavours[flavour];

const provider = new Provider(chosen.issuer, {
  clients: [{
    client_id: "portcullis",
    client_secret: "provider-test-secret",
    redirect_uris: [redirectUri],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    ...chosen.client,
  }],
  scopes: ["openid", "offline_access", "profile", "email"],
  claims: { openid: ["sub", ...chosen.names], profile: ["name"], email: ["email", "email_verified"] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  ttl: { AccessToken: 300, IdToken: 300, RefreshToken: 86400, Session: 86400, Grant: 86400, Interaction: 600 },
  cookies: { keys: ["only for this test"] },
  findAccount: async (_, id) => ({
    accountId: id,
    claims: async () => ({ sub: id, name: id, email: `${id}@example.com`, email_verified: true, ...chosen.claims(id) }),
  }),
  ...chosen.options,
});
const asked = {};
provider.on("grant.success", ({ oidc }) => {
  const person = oidc.entities.Account.accountId;
  if (oidc.params.grant_type === "refresh_token") asked[person] = (asked[person] ?? 0) + 1;
});
provider.on("server_error", (_, error) => console.error(error));
const handle = provider.callback();
createServer((request, response) => {
  if (request.url.startsWith("/asked/")) {
    response.end(String(asked[request.url.slice("/asked/".length)] ?? 0));
    return;
  }
  if (!request.url.startsWith(chosen.mount)) {
    response.writeHead(404).end();
    return;
  }
  request.originalUrl = request.url;
  request.url = request.url.slice(chosen.mount.length) || "/";
  handle(request, response);
}).listen(Number(port), "127.0.0.1", () => console.log("listening"));
