// Starts `portcullis demo` in a folder of its own, and plays an MCP client against it.

import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "./port.mjs";

export async function startDemo(binary, flags = []) {
  const folder = mkdtempSync(join(tmpdir(), "portcullis-browser-"));
  const listen = `127.0.0.1:${await freePort()}`;
  const child = spawn(binary, ["demo", "--listen", listen, ...flags], { cwd: folder, stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, PORTCULLIS_LOG: "warn" } });
  let output = "";
  await new Promise((resolve, reject) => {
    child.stdout.on("data", (data) => {
      output += data;
      if (output.includes("Ctrl-C")) resolve();
    });
    child.on("exit", (code) => reject(new Error(`demo ended with ${code}`)));
  });
  return {
    url: `http://${listen}`,
    mcp: /MCP URL\s+(\S+)/.exec(output)[1],
    admin: /Admin pages\s+(\S+)/.exec(output)[1],
    idp: /Identity provider\s+(\S+)/.exec(output)[1],
    async stop() {
      child.removeAllListeners("exit");
      const ended = new Promise((resolve) => child.on("exit", resolve));
      child.kill("SIGTERM");
      await ended;
      rmSync(folder, { recursive: true });
    },
  };
}

export async function register(demo, metadata) {
  const response = await fetch(`${demo.url}/register`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ token_endpoint_auth_method: "none", ...metadata }),
  });
  if (response.status !== 201) throw new Error(`register: ${response.status} ${await response.text()}`);
  return (await response.json()).client_id;
}

const base64url = (bytes) => Buffer.from(bytes).toString("base64url");

export function authorization(demo, clientId, redirectUri, extra = {}) {
  const verifier = base64url(randomBytes(32));
  const url = new URL(`${demo.url}/authorize`);
  const params = {
    response_type: "code",
    client_id: clientId,
    redirect_uri: redirectUri,
    state: base64url(randomBytes(12)),
    code_challenge: base64url(createHash("sha256").update(verifier).digest()),
    code_challenge_method: "S256",
    resource: demo.mcp,
    ...extra,
  };
  for (const [name, value] of Object.entries(params)) url.searchParams.set(name, value);
  return { url: url.href, verifier, state: params.state };
}

export async function redeem(demo, clientId, redirectUri, code, verifier) {
  const response = await fetch(`${demo.url}/token`, {
    method: "POST",
    body: new URLSearchParams({
      grant_type: "authorization_code",
      client_id: clientId,
      redirect_uri: redirectUri,
      code,
      code_verifier: verifier,
    }),
  });
  if (response.status !== 200) throw new Error(`token: ${response.status} ${await response.text()}`);
  return response.json();
}

// The client's own callback on loopback: remembers what the browser brings.
export async function startCallback() {
  const arrivals = [];
  let waiting = [];
  const server = createServer((request, response) => {
    const url = new URL(request.url, "http://localhost");
    if (url.pathname === "/callback") {
      arrivals.push(url.searchParams);
      waiting.forEach((wake) => wake());
      waiting = [];
    }
    response.writeHead(200, { "content-type": "text/html" });
    response.end("<!doctype html><title>Done</title><p>You may close this window.</p>");
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    redirectUri: `http://127.0.0.1:${server.address().port}/callback`,
    async next() {
      while (arrivals.length === 0) await new Promise((resolve) => waiting.push(resolve));
      return arrivals.shift();
    },
    stop: () => server.close(),
  };
}

// Receives webhooks.
export async function startReceiver() {
  const arrivals = [];
  let waiting = [];
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (data) => (body += data));
    request.on("end", () => {
      arrivals.push({ headers: request.headers, body: JSON.parse(body) });
      waiting.forEach((wake) => wake());
      waiting = [];
      response.writeHead(204).end();
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/hook`,
    async next() {
      while (arrivals.length === 0) await new Promise((resolve) => waiting.push(resolve));
      return arrivals.shift();
    },
    stop: () => server.close(),
  };
}
