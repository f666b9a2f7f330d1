// npm's server-everything behind the gateway: every tool gives what it gives without us, in one session with one
// id; for the official TypeScript SDK and for the official Go SDK, which gives up when the id of a session
// changes. Run by scripts/test-clients.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CallToolResultSchema, CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { authorization, redeem, register } from "../browser/demo.mjs";
import { open } from "./person.mjs";
import { startSite } from "./site.mjs";
import { Told } from "./told.mjs";

let site;
before(async () => { site = await startSite(process.env.PORTCULLIS); });
after(() => site?.stop());

// What to call each tool with. A tool that is not named here is called without arguments.
const ARGUMENTS = {
  echo: { message: "hello" },
  "get-sum": { a: 2, b: 3 },
  "get-annotated-message": { messageType: "error", includeImage: true },
  "get-resource-links": { count: 3 },
  "get-resource-reference": { resourceType: "Text", resourceId: 1 },
  "get-structured-content": { location: "New York" },
  "gzip-file-as-resource": { name: "hello.gz", data: "data:text/plain;base64,aGVsbG8=", outputType: "resource" },
  "trigger-long-running-operation": { duration: 1, steps: 2 },
  "simulate-research-query": { topic: "tea" },
  "trigger-url-elicitation": { url: "https://example.com/", message: "Open it", elicitationId: "elicitation-1" },
  "trigger-sampling-request": { prompt: "Say hello", maxTokens: 10 },
};
// Tools that switch something on until they are called again.
const TWICE = ["toggle-simulated-logging", "toggle-subscriber-updates"];
// A token for `url`, as a client gets it.
async function tokenFor(url, person, scope) {
  const redirectUri = "http://127.0.0.1:53129/callback";
  const here = { url: site.url, mcp: url };
  const client = await register(here, { client_name: "Every tool", redirect_uris: [redirectUri] });
  const asked = authorization(here, client, redirectUri, scope ? { scope } : {});
  const code = (await open(asked.url, person, redirectUri)).get("code");
  return (await redeem(here, client, redirectUri, code, asked.verifier)).access_token;
}

// Times and ids that differ from call to call, under one name.
const alike = (value) => JSON.parse(JSON.stringify(value)
  .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, "(time)")
  .replace(/\d{1,2}:\d\d:\d\d\s[AP]M/g, "(time)")
  .replace(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, "(uuid)")
  .replace(/"taskId":"[^"]+"/g, '"taskId":"(id)"'));

// Calls every tool in one session; the results by name, and the ids that the session had on the way.
async function everyTool(url, headers = {}) {
  const ids = new Set();
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers },
    fetch: async (...asked) => {
      const response = await fetch(...asked);
      if (response.headers.has("mcp-session-id")) ids.add(response.headers.get("mcp-session-id"));
      return response;
    },
  });
  // With roots, sampling and elicitation the server offers the tools that ask the client for these.
  const client = new Client({ name: "test", version: "1.0.0" }, { capabilities: { roots: { listChanged: true }, sampling: {}, elicitation: { form: {}, url: {} } } });
  client.setRequestHandler(ListRootsRequestSchema, () => ({ roots: [{ uri: "file:///tmp/here", name: "here" }] }));
  client.setRequestHandler(CreateMessageRequestSchema, () => ({ role: "assistant", model: "none", content: { type: "text", text: "hello" } }));
  client.setRequestHandler(ElicitRequestSchema, () => ({ action: "decline" }));
  await client.connect(transport);
  const results = {};
  // The server adds tools once it knows what the client can do.
  const { tools } = await client.listTools();
  for (const { name, execution } of tools) {
    const call = { name, arguments: ARGUMENTS[name] ?? {} };
    results[name] = [];
    for (const _ of TWICE.includes(name) ? [1, 2] : [1]) {
      if (execution?.taskSupport !== "required") {
        results[name].push(alike(await client.callTool(call)));
        continue;
      }
      for await (const message of client.experimental.tasks.callToolStream(call, CallToolResultSchema, { task: { ttl: 60_000 } })) {
        if (message.type === "result" || message.type === "error") results[name].push(alike(message.result ?? { thrown: message.error.message }));
      }
    }
  }
  await client.ping();
  await client.close();
  return { results, ids };
}

test("every tool gives through the gateway what it gives without it, in a session with one id", async () => {
  // The second has rules for single tools: there the gateway reads bodies and remembers tasks.
  const [plain, strict] = [await tokenFor(site.mcp, "somebody"), await tokenFor(site.tools, "admin", "use sum env")];
  const [direct, ...ways] = await Promise.all([
    everyTool(site.direct),
    everyTool(site.mcp, { authorization: `Bearer ${plain}` }),
    everyTool(site.tools, { authorization: `Bearer ${strict}` }),
  ]);
  const names = Object.keys(direct.results);
  console.log(`${names.length} tools: ${names.join(", ")}`);
  assert.ok(names.length >= 13, names.join());
  const failed = names.filter((name) => direct.results[name].some((result) => result.thrown || result.isError));
  assert.deepEqual(failed, [], JSON.stringify(failed.map((name) => direct.results[name])).slice(0, 2000));
  assert.equal(direct.ids.size, 1);
  for (const through of ways) {
    for (const name of names) assert.deepEqual(through.results[name], direct.results[name], name);
    assert.deepEqual(Object.keys(through.results), names);
    assert.equal(through.ids.size, 1, [...through.ids].join("\n"));
  }
});

const REDIRECT_URI = "http://127.0.0.1:53128/callback"; // of go/main.go
const as = (person, decision) => (url) => open(url, person, REDIRECT_URI, decision);

test("the Go SDK signs in, calls tools in one session, and is refreshed without a person", async () => {
  const go = new Told(process.env.GO_CLIENT, []);
  try {
    await go.get({ do: "connect", url: site.mcp }, as("somebody"));
    const { tools } = await go.get({ do: "list" });
    assert.ok(tools.length >= 12, JSON.stringify(tools));
    const first = await go.get({ do: "state" });
    for (let n = 0; n < 20; n++) await go.get({ do: "ping" });
    const { content } = await go.get({ do: "call", tool: "get-sum", arguments: { a: 2, b: 3 } });
    assert.match(content[0].text, /5/);

    await go.get({ do: "expire" });
    const { content: [echoed] } = await go.get({ do: "call", tool: "echo", arguments: { message: "Tea" } });
    assert.match(echoed.text, /Tea/);
    assert.deepEqual(await go.get({ do: "state" }), { ...first, asked: 1, renewed: first.renewed + 1 });
  } finally {
    await go.stop();
  }
});

test("the Go SDK steps up where the rules allow it, and reads why where they do not", async () => {
  const go = new Told(process.env.GO_CLIENT, []);
  try {
    await go.get({ do: "connect", url: site.tools }, as("somebody"));
    const { content } = await go.get({ do: "call", tool: "get-sum", arguments: { a: 2, b: 3 } }, as("somebody"));
    assert.match(content[0].text, /5/);
    assert.equal((await go.get({ do: "state" })).asked, 2);

    // Nobody is asked: signing in again would not help.
    const refused = await go.get({ do: "call", tool: "get-env", arguments: {} });
    console.log(`the Go SDK shows: ${refused.content[0].text}`);
    assert.equal(refused.isError, true);
    assert.match(refused.content[0].text, /not allowed to use get-env.*administrator/);
  } finally {
    await go.stop();
  }
});

test("the Go SDK learns that its person pressed Deny", async () => {
  const go = new Told(process.env.GO_CLIENT, []);
  try {
    const { error } = await go.do({ do: "connect", url: site.mcp }, as("somebody", "deny"));
    console.log(`the Go SDK shows: ${error}`);
    assert.match(error, /access_denied/);
  } finally {
    await go.stop();
  }
});
