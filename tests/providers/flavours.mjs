// npm's oidc-provider as three kinds of provider. Arguments: flavour, port, redirect URI of Portcullis.

import { createServer } from "node:http";
import Provider from "oidc-provider";

const [flavour, port, redirectUri] = process.argv.slice(2);
const origin = `http://127.0.0.1:${port}`;
const isAdmin = (id) => id === "alice";

const flavours = {
  // An Okta custom authorization server: a path in the issuer, groups in the ID token.
  "okta-like": {
    issuer: `${origin}/oauth2/default`,
    mount: "/oauth2/default",
    claims: (id) => ({ groups: isAdmin(id) ? ["Todo Admins", "Everyone"] : ["Everyone"] }),
    names: ["groups"],
  },
  // Auth0: a slash at the end of the issuer, roles under a name of one's own.
  "auth0-like": {
    issuer: `${origin}/`,
    mount: "",
    claims: (id) => ({ "https://acme.example/roles": [isAdmin(id) ? "Admin" : "User"] }),
    names: ["https://acme.example/roles"],
    extraParams: ["audience"],
  },
  // Every refresh token works once; its second use ends the grant.
  "strict-rotation": {
    issuer: origin,
    mount: "",
    claims: (id) => ({ roles: [isAdmin(id) ? "Admin" : "User"] }),
    names: ["roles"],
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
  }],
  scopes: ["openid", "offline_access", "profile", "email"],
  claims: { openid: ["sub", ...chosen.names], profile: ["name"], email: ["email", "email_verified"] },
  extraParams: chosen.extraParams ?? [],
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  rotateRefreshToken: true,
  ttl: { AccessToken: 300, IdToken: 300, RefreshToken: 86400, Session: 86400, Grant: 86400, Interaction: 600 },
  cookies: { keys: ["only for this test"] },
  findAccount: async (_, id) => ({
    accountId: id,
    claims: async () => ({ sub: id, name: id, email: `${id}@example.com`, email_verified: true, ...chosen.claims(id) }),
  }),
});
provider.on("server_error", (_, error) => console.error(error));
const handle = provider.callback();
createServer((request, response) => {
  if (!request.url.startsWith(chosen.mount)) {
    response.writeHead(404).end();
    return;
  }
  request.originalUrl = request.url;
  request.url = request.url.slice(chosen.mount.length) || "/";
  handle(request, response);
}).listen(Number(port), "127.0.0.1", () => console.log("listening"));
