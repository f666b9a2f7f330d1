// Every tool of npm's server-everything, called by the official TypeScript SDK; and a token to do that with.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CallToolResultSchema, CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { authorization, redeem, register } from "../browser/demo.mjs";
import { open } from "./person.mjs";

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
// A token for `mcp` behind Portcullis at `url`, as a client gets it.
export async function tokenFor(url, mcp, person, scope) {
  const redirectUri = "http://127.0.0.1:53129/callback";
  const here = { url, mcp };
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
export async function everyTool(url, headers = {}) {
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
