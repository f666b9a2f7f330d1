// What you have on GitHub: the person's token by header, by exchange, and a link where it is missing.

import { createMcpExpressApp } from "@modelcontextprotocol/express";
import { toNodeHandler } from "@modelcontextprotocol/node";
import { McpServer, createMcpHandler, inputRequired } from "@modelcontextprotocol/server";

const PORT = Number(process.env.PORT ?? 9014);
const ISSUER = process.env.ISSUER ?? "http://127.0.0.1:8000"; // `public_url` of Portcullis
const MCP_URL = process.env.MCP_URL ?? `${ISSUER}/github-node`; // `public_url` and the resource's `path`
const SECRET = process.env.MCP_SERVER_SECRET; // `introspection_secret` of the resource
const GITHUB = process.env.GITHUB_API ?? "https://api.github.com";
if (!SECRET) throw new Error("MCP_SERVER_SECRET is not set");

const CAPABILITIES = "io.modelcontextprotocol/clientCapabilities";
const say = (text, isError = false) => ({ content: [{ type: "text", text }], isError });

// Exchanges the gateway's assertion about this call for the caller's token of GitHub (RFC 8693).
async function exchange(assertion) {
  const answer = await fetch(`${ISSUER}/token`, {
    method: "POST",
    headers: { authorization: `Basic ${Buffer.from(`${MCP_URL}:${SECRET}`).toString("base64")}` },
    body: new URLSearchParams({
      grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
      subject_token: assertion,
      subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
      audience: "github", // the name of the connection
    }),
  });
  const body = await answer.json();
  if (!answer.ok && !body.connect_url) throw new Error(`${answer.status}: ${body.error_description}`);
  return body;
}

// Asks the person to open the link, in the way that their client understands.
function askToConnect(ctx, url) {
  if (!ctx.mcpReq.envelope?.[CAPABILITIES]?.elicitation?.url) {
    return say(`Connect your GitHub account here, then try again: ${url}`, true);
  }
  const message = "Connect your GitHub account, then continue.";
  return inputRequired({ inputRequests: { connect: inputRequired.elicitUrl({ message, url }) } });
}

async function askGitHub(token, path) {
  const answer = await fetch(`${GITHUB}${path}`, { headers: { authorization: `Bearer ${token}` } });
  if (!answer.ok) throw new Error(`GitHub answered ${answer.status}`);
  return answer.json();
}

// One for each request.
function github() {
  const server = new McpServer({ name: "github", version: "1.0.0" });
  const header = (ctx, name) => ctx.http.req.headers.get(name);
  // By header: the gateway set it. Nobody but the gateway reaches this port, and clients cannot send it.
  server.registerTool("who_am_i", { description: "Says which GitHub account you use." }, async (ctx) => {
    return say((await askGitHub(header(ctx, "x-github-token"), "/user")).login);
  });
  // By exchange: this tool asks for the token itself, only when it needs one.
  server.registerTool("my_repositories", { description: "Lists your repositories on GitHub." }, async (ctx) => {
    const { access_token: token, connect_url: url } = await exchange(header(ctx, "x-portcullis-assertion"));
    if (url) return askToConnect(ctx, url);
    const found = await askGitHub(token, "/user/repos");
    return say(found.map((repository) => repository.full_name).join("\n"));
  });
  return server;
}

const app = createMcpExpressApp();
const handle = toNodeHandler(createMcpHandler(github));
app.all("/mcp", (request, response) => handle(request, response, request.body));
app.listen(PORT, "127.0.0.1");
