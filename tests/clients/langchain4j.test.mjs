// LangChain4j over http://, with Java's HTTP client as it comes: it offers `h2c` with every request. LangChain4j
// knows no OAuth, so a program fetches and refreshes its tokens. Run by scripts/test-clients.

import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { authorization, redeem, register } from "../browser/demo.mjs";
import { open } from "./person.mjs";
import { startSite } from "./site.mjs";
import { Told } from "./told.mjs";

const REDIRECT_URI = "http://127.0.0.1:53131/callback";
const source = join(dirname(fileURLToPath(import.meta.url)), "java/Client.java");

let site, java;
before(async () => {
  site = await startSite(process.env.PORTCULLIS);
  java = new Told("java", ["-cp", `${process.env.LANGCHAIN4J}/*`, source]);
});
after(async () => {
  await java?.stop();
  await site?.stop();
});

test("Nimbus reads both metadata documents", async () => {
  const { openid, token } = await java.get({ do: "metadata", issuer: site.url });
  assert.match(openid, /RS256/);
  assert.equal(token, `${site.url}/token`);
});

test("LangChain4j calls a tool with a token, and with the one after it", async () => {
  const here = { url: site.url, mcp: site.tools };
  const client = await register(here, { client_name: "For LangChain4j", redirect_uris: [REDIRECT_URI], grant_types: ["authorization_code", "refresh_token"] });
  const denied = await open(authorization(here, client, REDIRECT_URI).url, "somebody", REDIRECT_URI, "deny");
  assert.equal(denied.get("error"), "access_denied");

  const asked = authorization(here, client, REDIRECT_URI);
  const code = (await open(asked.url, "somebody", REDIRECT_URI)).get("code");
  const tokens = await redeem(here, client, REDIRECT_URI, code, asked.verifier);
  await java.get({ do: "token", token: tokens.access_token });
  await java.get({ do: "connect", url: site.tools });
  assert.ok((await java.get({ do: "list" })).includes("echo"));
  const echo = { do: "call", tool: "echo", arguments: { message: "Tea" } };
  assert.match((await java.get(echo)).text, /Tea/);

  const refreshed = await (await fetch(`${site.url}/token`, {
    method: "POST",
    body: new URLSearchParams({ grant_type: "refresh_token", client_id: client, refresh_token: tokens.refresh_token }),
  })).json();
  await java.get({ do: "token", token: refreshed.access_token });
  assert.match((await java.get(echo)).text, /Tea/);
});

test("LangChain4j shows why a tool is refused: for good, or until a person signs in for more", async () => {
  // A result with `isError` is an exception with the text of the result.
  const never = await java.do({ do: "call", tool: "get-env", arguments: {} });
  console.log(`LangChain4j throws: ${never.error}`);
  assert.match(never.error, /not allowed to use get-env.*administrator/);

  const { error } = await java.do({ do: "call", tool: "get-sum", arguments: { a: 2, b: 3 } });
  console.log(`LangChain4j throws: ${error}`);
  assert.match(error, /403/);
});

test("LangChain4j shows that a token is not good", async () => {
  await java.get({ do: "token", token: "no-longer-good" });
  const { error } = await java.do({ do: "call", tool: "echo", arguments: { message: "Tea" } });
  console.log(`LangChain4j throws: ${error}`);
  assert.match(error, /401/);
});
