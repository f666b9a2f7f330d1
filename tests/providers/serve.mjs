// `portcullis serve` in front of a small MCP server that says who called.

import { execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

// The secret of the client `portcullis` at every provider.
export const SECRET = "provider-test-secret";

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
  const config = `
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
`;
  return serve(binary, folder, url, config);
}

// Serves with a configuration of the caller's.
export async function serve(binary, folder, url, config) {
  writeFileSync(join(folder, "portcullis.toml"), config);
  const env = { ...process.env, PORTCULLIS_LOG: "info", PROVIDER_SECRET: SECRET };
  const child = spawn(binary, ["serve"], { cwd: folder, stdio: ["ignore", "inherit", "pipe"], env });
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
    config,
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

// `portcullis check --json`: the exit code, and the findings by probe. What clients publish is left out: it is on the
// internet.
export async function check(binary, config, secret = SECRET) {
  const folder = mkdtempSync(join(tmpdir(), "portcullis-check-"));
  writeFileSync(join(folder, "portcullis.toml"), `${config}\n[client_documents]\nenabled = false\n`);
  const env = { ...process.env, PROVIDER_SECRET: secret };
  const { code, stdout } = await new Promise((resolve) => {
    execFile(binary, ["check", "--json"], { cwd: folder, env }, (error, stdout) => resolve({ code: error?.code ?? 0, stdout }));
  });
  rmSync(folder, { recursive: true });
  const { findings } = JSON.parse(stdout);
  return { code, findings, of: (probe) => findings.find((finding) => finding.probe === probe) };
}
