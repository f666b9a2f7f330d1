// An OpenID provider that is not ours: oidc-provider, with its own login pages, on loopback.
// Arguments: port, redirect URI of Portcullis.

import Provider from "oidc-provider";

const [port, redirectUri] = process.argv.slice(2);

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: "portcullis",
    client_secret: "a secret: with / characters + that need % encoding",
    redirect_uris: [redirectUri],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
  }],
  scopes: ["openid", "offline_access", "profile", "email"],
  claims: { openid: ["sub", "roles"], profile: ["name"], email: ["email", "email_verified"] },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  rotateRefreshToken: true,
  ttl: { AccessToken: 300, IdToken: 300, RefreshToken: 86400, Session: 86400, Grant: 86400, Interaction: 600 },
  cookies: { keys: ["only for this test"] },
  async findAccount(_, id) {
    return {
      accountId: id,
      claims: async () => ({ sub: id, name: `The person ${id}`, email: `${id}@example.com`, email_verified: true, roles: id === "admin" ? ["Admin"] : ["User"] }),
    };
  },
});
provider.on("server_error", (_, error) => console.error(error));
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
