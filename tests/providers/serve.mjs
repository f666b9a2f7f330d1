// `portcullis serve` in front of a small MCP server that says who called.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export async function freePort() {
  const server = createTcpServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const said = (headers) => ({
  subject: headers["x-portcullis-subject"],
  email: headers["x-portcullis-email"],
  scopes: headers["x-portcullis-scopes"],
});

export async function startMcpServer() {
  const seen = [];
  const server = createServer((request, response) => {
    seen.push(request.headers);
    request.resume();
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ jsonrpc: "2.0", id: 1, result: said(request.headers) }));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}/mcp`, seen, stop: () => server.close() };
}

export async function startPortcullis(binary, port, upstream, rules, target) {
  const folder = mkdtempSync(join(tmpdir(), "portcullis-providers-"));
  const url = `http://127.0.0.1:${port}`;
  writeFileSync(join(folder, "portcullis.toml"), `
public_url = "${url}"
listen     = "127.0.0.1:${port}"
[upstream]
recheck    = "1m"
${upstream}
[[resource]]
path   = "/mcp"
target = "${target}"
scopes = ["read", "write", "staff"]
rule   = ${rules}
`);
  const child = spawn(binary, ["serve"], { cwd: folder, stdio: ["ignore", "inherit", "pipe"], env: { ...process.env, PORTCULLIS_LOG: "info" } });
  let said = "";
  await new Promise((resolve, reject) => {
    child.stderr.on("data", (data) => {
      said += data;
      if (said.includes("serving")) resolve();
    });
    child.on("exit", (code) => reject(new Error(`portcullis ended with ${code}: ${said}`)));
  });
  return {
    url,
    mcp: `${url}/mcp`,
    log: () => said,
    async stop() {
      child.removeAllListeners("exit");
      const ended = new Promise((resolve) => child.on("exit", resolve));
      child.kill("SIGTERM");
      await ended;
      rmSync(folder, { recursive: true });
    },
  };
}
