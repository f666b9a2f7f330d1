// Two OAuth libraries for Node that people build clients with, against `portcullis demo`: openid-client, which
// registers itself, and simple-oauth2 with a secret, which wants JSON from every endpoint. Run by
// scripts/test-clients.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import * as openid from "openid-client";
import { AuthorizationCode } from "simple-oauth2";
import { authorization, startDemo } from "../browser/demo.mjs";
import { open } from "./person.mjs";

const REDIRECT_URI = "http://127.0.0.1:53132/callback";

let demo;
before(async () => { demo = await startDemo(process.env.PORTCULLIS); });
after(() => demo?.stop());

const purge = (token) => fetch(demo.mcp, {
  method: "POST",
  headers: { authorization: `Bearer ${token}`, "content-type": "application/json", accept: "application/json, text/event-stream", "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "purge-todos" },
  body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "purge-todos", arguments: {} } }),
}).then((response) => response.json());

test("openid-client registers, signs in, refreshes, revokes, and reads why not", async () => {
  const metadata = { client_name: "openid-client", redirect_uris: [REDIRECT_URI], grant_types: ["authorization_code", "refresh_token"], token_endpoint_auth_method: "none" };
  const config = await openid.dynamicClientRegistration(new URL(demo.url), metadata, openid.None(), { algorithm: "oauth2", execute: [openid.allowInsecureRequests] });
  const signIn = async (person, decision) => {
    const pkceCodeVerifier = openid.randomPKCECodeVerifier();
    const expectedState = openid.randomState();
    const url = openid.buildAuthorizationUrl(config, {
      redirect_uri: REDIRECT_URI, resource: demo.mcp, state: expectedState,
      code_challenge: await openid.calculatePKCECodeChallenge(pkceCodeVerifier), code_challenge_method: "S256",
    });
    const back = new URL(`${REDIRECT_URI}?${await open(url.href, person, REDIRECT_URI, decision)}`);
    return openid.authorizationCodeGrant(config, back, { pkceCodeVerifier, expectedState });
  };
  const tokens = await signIn("bob");
  const fresh = await openid.refreshTokenGrant(config, tokens.refresh_token);
  assert.match((await purge(fresh.access_token)).result.content[0].text, /not allowed to use purge-todos/);
  await openid.tokenRevocation(config, fresh.refresh_token);
  for (const [action, expected] of [
    [() => openid.refreshTokenGrant(config, fresh.refresh_token), ["invalid_grant", /sign in again/]],
    [() => signIn("bob", "deny"), ["access_denied", /did not approve/]],
    [() => signIn("mallory"), ["access_denied", /has no access/]],
  ]) {
    await assert.rejects(action, ({ error, error_description: words }) => {
      console.log(`openid-client shows: ${error}: ${words}`);
      return error === expected[0] && expected[1].test(words);
    });
  }
});

test("simple-oauth2 signs in with a secret, refreshes, and revokes both tokens", async () => {
  const registration = await fetch(`${demo.url}/register`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ client_name: "simple-oauth2", redirect_uris: [REDIRECT_URI], token_endpoint_auth_method: "client_secret_basic" }),
  });
  const { client_id: id, client_secret: secret } = await registration.json();
  const client = new AuthorizationCode({ client: { id, secret }, auth: { tokenHost: demo.url, tokenPath: "/token", authorizePath: "/authorize", revokePath: "/revoke" } });
  const { url, verifier } = authorization(demo, id, REDIRECT_URI);
  const code = (await open(url, "bob", REDIRECT_URI)).get("code");
  let tokens = await client.getToken({ code, redirect_uri: REDIRECT_URI, code_verifier: verifier });
  tokens = await tokens.refresh();
  assert.equal((await purge(tokens.token.access_token)).result.isError, true);
  await tokens.revokeAll();
  await assert.rejects(() => tokens.refresh(), ({ data }) => {
    console.log(`simple-oauth2 shows: ${JSON.stringify(data.payload)}`);
    return data.payload.error === "invalid_grant" && /sign in again/.test(data.payload.error_description);
  });
  assert.equal((await open(authorization(demo, id, REDIRECT_URI).url, "bob", REDIRECT_URI, "deny")).get("error"), "access_denied");
});
