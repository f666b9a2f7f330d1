// Two MCP servers that speak stdio, behind `portcullis bridge` and the gateway: npm's server-everything and one
// made with the official Python SDK; called by the official TypeScript SDK. Run by scripts/test-bridge.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { freePort } from "../browser/port.mjs";
import { everyTool, tokenFor } from "./every-tool.mjs";
import { startProcess } from "./site.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const everything = join(here, "node_modules/@modelcontextprotocol/server-everything/dist/index.js");
const binary = process.env.PORTCULLIS;
const log = { ...process.env, PORTCULLIS_LOG: "info" };

// A bridge on a port of its own.
async function startBridge(options, command) {
  const port = await freePort();
  const bridge = await startProcess(binary, ["bridge", "--listen", `127.0.0.1:${port}`, ...options, "--", ...command], "serving", { cwd: here, env: log });
  const health = async () => (await fetch(`http://127.0.0.1:${port}/health`)).json();
  return { ...bridge, mcp: `http://127.0.0.1:${port}/mcp`, health };
}

// One person has more sessions here than is usual.
const config = (url, listen, provider, targets) => `
public_url = "${url}"
listen     = "${listen}"
[upstream]
provider      = "oidc"
issuer        = "${provider}"
client_id     = "portcullis"
client_secret = { env = "UPSTREAM_SECRET" }
[client_documents]
enabled = false
[limits]
requests_per_person = 200
requests_per_client = 200
streams_per_person  = 200
streams_per_client  = 200
${Object.entries(targets).map(([path, target]) => `
[[resource]]
path   = "/${path}"
target = "${target}"
scopes = ["use"]
rule   = [{ roles = ["Admin", "User"], allow = ["use"] }]
`).join("")}`;

const folder = mkdtempSync(join(tmpdir(), "portcullis-bridge-"));
const running = [];
let url, bridges, direct;
before(async () => {
  const [port, providerPort, directPort] = [await freePort(), await freePort(), await freePort()];
  const python = [process.env.PYTHON, join(here, "stdio_server.py")];
  url = `http://127.0.0.1:${port}`;
  direct = `http://127.0.0.1:${directPort}/mcp`;
  running.push(await startProcess("node", [everything, "streamableHttp"], "listening on port", { env: { PATH: process.env.PATH, PORT: String(directPort) } }));
  bridges = {
    everything: await startBridge([], ["node", everything, "stdio"]),
    python: await startBridge(["--max-children", "60", "--max-children-per-person", "60"], python),
    person: await startBridge(["--per", "person"], python),
  };
  running.push(...Object.values(bridges));
  running.push(await startProcess("node", [join(here, "provider.mjs"), String(providerPort), `${url}/auth/callback`], "listening"));
  const targets = Object.fromEntries(Object.entries(bridges).map(([path, { mcp }]) => [path, mcp]));
  writeFileSync(join(folder, "portcullis.toml"), config(url, `127.0.0.1:${port}`, `http://127.0.0.1:${providerPort}`, targets));
  running.push(await startProcess(binary, ["serve"], "serving", { cwd: folder, env: { ...log, UPSTREAM_SECRET: "a secret: with / characters + that need % encoding" } }));
});
after(async () => {
  for (const process of running.reverse()) await process.stop();
  rmSync(folder, { recursive: true });
});

const tokens = new Map();
async function headersFor(path, person) {
  const key = `${path} ${person}`;
  if (!tokens.has(key)) tokens.set(key, tokenFor(url, `${url}/${path}`, person));
  return { authorization: `Bearer ${await tokens.get(key)}` };
}

// Fifty programs that start at once on two cores take their time.
const PATIENCE = { timeout: 170_000 };

// A session of the SDK through the gateway.
async function connect(path, person) {
  const client = new Client({ name: "test", version: "1.0.0" });
  const transport = new StreamableHTTPClientTransport(new URL(`${url}/${path}`), { requestInit: { headers: await headersFor(path, person) } });
  await client.connect(transport, PATIENCE);
  return client;
}

const whoami = async (client) => {
  const { structuredContent } = await client.callTool({ name: "whoami", arguments: {} }, undefined, PATIENCE);
  return structuredContent.result ?? structuredContent;
};

// What the system says of a process: state, parent, group.
function stat(pid) {
  try {
    const [state, parent, group] = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1).split(" ");
    return { state, parent: Number(parent), group: Number(group) };
  } catch {
    return { state: "gone" };
  }
}
const runs = (pid) => !["gone", "Z", "X"].includes(stat(pid).state);
const childrenOf = (pid) => readdirSync("/proc").filter((name) => /^\d+$/.test(name) && stat(name).parent === pid).map(Number);
async function until(what, is) {
  for (let n = 0; n < 600; n++) {
    if (await is()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`never: ${what}`);
}

test("every tool of server-everything gives behind the bridge what it gives over HTTP", async () => {
  const headers = await headersFor("everything", "somebody");
  const [plain, bridged] = await Promise.all([everyTool(direct), everyTool(`${url}/everything`, headers)]);
  delete plain.results["get-env"];
  delete bridged.results["get-env"]; // another process
  const names = Object.keys(plain.results);
  console.log(`${names.length} tools: ${names.join(", ")}`);
  assert.ok(names.length >= 12, names.join());
  // On stdio the server has no session of its own to name.
  const unnamed = JSON.parse(JSON.stringify(bridged.results).replaceAll("for session undefined", "for session (uuid)"));
  for (const name of names) assert.deepEqual(unnamed[name], plain.results[name], name);
  assert.deepEqual(Object.keys(bridged.results), names);
  assert.equal(bridged.ids.size, 1);
});

test("a process knows its person, and each of fifty sessions at once has its own", async () => {
  const began = Date.now();
  const clients = await Promise.all(Array.from({ length: 50 }, () => connect("python", "somebody")));
  const told = await Promise.all(clients.map(whoami));
  assert.equal(new Set(told.map(({ pid }) => pid)).size, 50);
  for (const one of told) {
    assert.equal(one.PORTCULLIS_SUBJECT, "oidc:somebody");
    assert.equal(one.PORTCULLIS_EMAIL, "somebody@example.com");
    assert.deepEqual(Object.keys(one).filter((name) => /SECRET|KEY|LOG/.test(name)), []);
  }
  console.log(`50 sessions in ${Date.now() - began} ms: ${JSON.stringify(await bridges.python.health())}`);
  for (const client of clients) await client.transport.terminateSession();
  await Promise.all(clients.map((client) => client.close()));
  await until("all processes have ended", () => !told.some(({ pid }) => runs(pid)));
  assert.equal((await bridges.python.health()).sessions, 0);
});

test("per person, all sessions of a person share a process", async () => {
  const [one, other, admins] = [await connect("person", "somebody"), await connect("person", "somebody"), await connect("person", "admin")];
  const [a, b, c] = [await whoami(one), await whoami(other), await whoami(admins)];
  assert.equal(a.pid, b.pid);
  assert.notEqual(a.pid, c.pid);
  assert.deepEqual([a.PORTCULLIS_SUBJECT, c.PORTCULLIS_SUBJECT], ["oidc:somebody", "oidc:admin"]);
  for (const client of [one, other, admins]) await client.close();
});

test("kill -9 of a process in the middle of a call is an error at once, and a new session works", async () => {
  const client = await connect("python", "somebody");
  const { pid } = await whoami(client);
  let call;
  await new Promise((arrived) => {
    call = client.callTool({ name: "forever", arguments: {} }, undefined, { onprogress: arrived });
    call.catch(() => {});
  });
  const began = Date.now();
  process.kill(Number(pid), "SIGKILL");
  await assert.rejects(call, (error) => {
    console.log(`the TypeScript SDK shows after ${Date.now() - began} ms: ${error.message}`);
    return /signal 9/.test(error.message) && error.code === -32603;
  });
  await assert.rejects(whoami(client), /session does not exist/);
  const again = await connect("python", "somebody");
  assert.notEqual((await whoami(again)).pid, pid);
  await Promise.all([client.close(), again.close()]);
});

test("nothing stays behind when a bridge ends, also with kill -9", async () => {
  for (const signal of ["SIGTERM", "SIGKILL"]) {
    const bridge = await startBridge([], ["npx", "--no-install", "mcp-server-everything", "stdio"]);
    const client = new Client({ name: "test", version: "1.0.0" });
    await client.connect(new StreamableHTTPClientTransport(new URL(bridge.mcp)));
    assert.ok((await client.listTools()).tools.length >= 12);
    const groups = childrenOf(bridge.pid).map((pid) => stat(pid).group);
    const all = readdirSync("/proc").filter((name) => /^\d+$/.test(name) && groups.includes(stat(name).group));
    assert.ok(all.length >= 3, `npx, the server and the watchdog: ${all}`);
    await bridge.stop(signal);
    await until(`all processes have ended after ${signal}`, () => !all.some(runs));
    await client.close();
  }
});
