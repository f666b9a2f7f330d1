// The official TypeScript SDK's own OAuth client against `portcullis demo`: discovery, registration, PKCE,
// callback, a tool call, and a refresh. Run by scripts/test-clients.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { startDemo } from "../browser/demo.mjs";
import { UrlElicitationRequiredError } from "@modelcontextprotocol/sdk/types.js";
import { connectService, open } from "./person.mjs";

const REDIRECT_URI = "http://127.0.0.1:53126/callback";

let demo;
before(async () => { demo = await startDemo(process.env.PORTCULLIS); });
after(() => demo?.stop());

// What the SDK asks of whoever uses it, and a person who follows the link.
class Provider {
  redirectUrl = REDIRECT_URI;
  clientMetadata = {
    client_name: "TypeScript SDK",
    redirect_uris: [REDIRECT_URI],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  };
  asked = 0;
  constructor(person, decision) { Object.assign(this, { person, decision }); }
  state() { return this.sent = crypto.randomUUID(); }
  clientInformation() { return this.client; }
  saveClientInformation(client) { this.client = client; }
  tokens() { return this.saved; }
  saveTokens(tokens) { this.saved = tokens; }
  saveCodeVerifier(verifier) { this.verifier = verifier; }
  codeVerifier() { return this.verifier; }
  async redirectToAuthorization(url) {
    this.asked += 1;
    this.answer = await open(url.href, this.person, REDIRECT_URI, this.decision);
    assert.equal(this.answer.get("state"), this.sent);
  }
}

async function connect(provider, capabilities = {}) {
  for (;;) {
    const transport = new StreamableHTTPClientTransport(new URL(demo.mcp), { authProvider: provider });
    const client = new Client({ name: "test", version: "1.0.0" }, { capabilities });
    try {
      await client.connect(transport);
      return client;
    } catch (error) {
      if (!(error instanceof UnauthorizedError) || provider.saved) throw error;
      assert.equal(provider.answer.get("iss"), demo.url);
      await transport.finishAuth(provider.answer.get("code"));
    }
  }
}

const claims = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url"));

test("bob connects, calls a tool, and is refreshed without being asked", async () => {
  const provider = new Provider("bob");
  const client = await connect(provider);
  assert.ok(provider.client.client_id, "the SDK registered itself");
  assert.equal(claims(provider.saved.access_token).aud, demo.mcp);
  const { tools } = await client.listTools();
  assert.deepEqual(tools.map(({ name }) => name).sort(), ["agenda", "create-todo", "delete-todo", "get-todos", "purge-todos"]);
  const made = await client.callTool({ name: "create-todo", arguments: { content: "Tea" } });
  assert.ok(!made.isError, JSON.stringify(made));

  // A token that opens nothing any more: the SDK hears 401 and refreshes.
  const before = provider.saved;
  provider.saved = { ...before, access_token: `${before.access_token.slice(0, -8)}AAAAAAAA` };
  const { structuredContent } = await client.callTool({ name: "get-todos", arguments: {} });
  assert.equal(structuredContent.todos.at(-1).content, "Tea");
  assert.notEqual(provider.saved.refresh_token, before.refresh_token);

  const refused = await client.callTool({ name: "purge-todos", arguments: {} });
  assert.equal(refused.isError, true);
  assert.match(refused.content[0].text, /not allowed to use purge-todos.*administrator/);
  assert.equal(provider.asked, 1);
  await client.close();
});

const eventsOf = ({ isError, structuredContent, content }) => {
  assert.ok(!isError, JSON.stringify(content));
  return structuredContent.events.map(({ what }) => what);
};

test("alice reads a link, connects her calendar, and the second call has her agenda", async () => {
  const client = await connect(new Provider("alice"));
  const refused = await client.callTool({ name: "agenda", arguments: {} });
  assert.equal(refused.isError, true);
  const [link] = /http:\/\/\S+\/connect\/calendar\?for=[^\s)]+?(?=[.,)]*(?:\s|$))/.exec(refused.content[0].text) ?? [];
  assert.ok(link, refused.content[0].text);
  await connectService(link, "alice");
  assert.deepEqual(eventsOf(await client.callTool({ name: "agenda", arguments: {} })), ["Stand-up", "Access review with Bob"]);
  await client.close();
});

test("a client that can show links hears -32042; bob connects, and the second call has his agenda", async () => {
  const client = await connect(new Provider("bob"), { elicitation: { url: {} } });
  const error = await client.callTool({ name: "agenda", arguments: {} }).then(JSON.stringify, (error) => error);
  assert.ok(error instanceof UrlElicitationRequiredError, error);
  const [{ mode, url }] = error.elicitations;
  assert.equal(mode, "url");
  await connectService(url, "bob");
  assert.deepEqual(eventsOf(await client.callTool({ name: "agenda", arguments: {} })), ["Dentist", "Access review with Alice"]);
  await client.close();
});

for (const [person, decision] of [["mallory", "approve"], ["bob", "deny"]]) {
  test(`the client learns access_denied (${person}, ${decision})`, async () => {
    const provider = new Provider(person, decision);
    const transport = new StreamableHTTPClientTransport(new URL(demo.mcp), { authProvider: provider });
    await assert.rejects(new Client({ name: "test", version: "1.0.0" }).connect(transport), UnauthorizedError);
    assert.equal(provider.answer.get("error"), "access_denied");
    assert.equal(provider.saved, undefined);
  });
}
