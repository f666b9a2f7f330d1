// The to-do manager, with the MCP Auth SDK (mcp-auth) as the verifier of Portcullis' tokens.

import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { hostHeaderValidation } from "@modelcontextprotocol/sdk/server/middleware/hostHeaderValidation.js";
import express from "express";
import { MCPAuth } from "mcp-auth";
import { z } from "zod";

const PORT = Number(process.env.PORT ?? 9003);
const MCP_URL = process.env.MCP_URL ?? `http://127.0.0.1:${PORT}/mcp`; // `id` of the resource, byte for byte
const ISSUER = process.env.ISSUER ?? "http://127.0.0.1:8000"; // `public_url` of Portcullis, byte for byte

const auth = new MCPAuth({
  protectedResources: [{
    metadata: {
      resource: MCP_URL,
      authorizationServers: [{ issuer: ISSUER, type: "oauth" }],
      scopesSupported: ["create:todos", "read:todos", "delete:todos"],
      bearerMethodsSupported: ["header"],
    },
  }],
});
const verified = auth.bearerAuth("jwt", {
  resource: MCP_URL,
  audience: MCP_URL,
  jwtVerify: { typ: "at+jwt", algorithms: ["EdDSA"], clockTolerance: 5, requiredClaims: ["exp", "client_id"] },
});

const todos = new Map();
let made = 0;

const answer = (value) => ({ content: [{ type: "text", text: JSON.stringify(value) }], structuredContent: value });
const refused = (text) => ({ content: [{ type: "text", text }], isError: true });
const needs = (scope) => refused(`This needs the permission ${scope}.`);

// One for each request: no state but the to-dos is kept between calls.
function todoManager({ subject, scopes }) {
  const server = new McpServer({ name: "to-do manager", version: "1.0.0" });
  server.registerTool("create-todo", {
    description: "Adds a to-do for yourself.",
    inputSchema: { content: z.string() },
  }, ({ content }) => {
    if (!scopes.includes("create:todos")) return needs("create:todos");
    const todo = { id: String(++made), owner: subject, content };
    todos.set(todo.id, todo);
    return answer(todo);
  });
  server.registerTool("get-todos", {
    description: "Lists to-dos: everybody's with read:todos, otherwise your own.",
  }, () => {
    const everybody = scopes.includes("read:todos");
    return answer({ todos: [...todos.values()].filter(({ owner }) => everybody || owner === subject) });
  });
  server.registerTool("delete-todo", {
    description: "Deletes a to-do: anybody's with delete:todos, otherwise your own.",
    inputSchema: { id: z.string() },
  }, ({ id }) => {
    const todo = todos.get(id);
    if (todo?.owner !== subject && !scopes.includes("delete:todos")) return needs("delete:todos");
    if (!todo) return refused(`There is no to-do ${id}.`);
    todos.delete(id);
    return answer(todo);
  });
  return server;
}

const app = express();
app.use(hostHeaderValidation([new URL(MCP_URL).hostname]));
app.use(auth.protectedResourceMetadataRouter());
app.post(new URL(MCP_URL).pathname, verified, express.json(), async (request, response) => {
  const server = todoManager(request.auth);
  const transport = new StreamableHTTPServerTransport({ sessionIdGenerator: undefined });
  response.on("close", () => server.close());
  await server.connect(transport);
  await transport.handleRequest(request, response, request.body);
});
app.all(new URL(MCP_URL).pathname, verified, (_, response) => response.status(405).set("Allow", "POST").end());
app.listen(PORT, "127.0.0.1");
