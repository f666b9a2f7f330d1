// `portcullis serve` between programs and npm's server-everything, with npm's oidc-provider for sign-ins.
// `/mcp` asks for one scope; `/tools` has rules for single tools. Published clients are off: a program that has
// a description on a website registers here instead, since nothing on the internet is asked.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { freePort } from "../browser/port.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const SECRET = "a secret: with / characters + that need % encoding";

// Starts a process and returns once one of its lines says `until`.
export async function startProcess(command, args, until, options = {}) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
  let said = "";
  await new Promise((resolve, reject) => {
    const hear = (data) => {
      said += data;
      if (said.includes(until)) resolve();
    };
    child.stdout.on("data", hear);
    child.stderr.on("data", hear);
    child.on("error", reject);
    child.on("exit", (code) => reject(new Error(`${command} ${args} ended with ${code}: ${said}`)));
  });
  return {
    said: () => said,
    pid: child.pid,
    async stop(signal = "SIGTERM") {
      child.removeAllListeners("exit");
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = new Promise((resolve) => child.on("exit", resolve));
      child.kill(signal);
      await ended;
    },
  };
}

const config = (url, listen, provider, target) => `
public_url = "${url}"
listen     = "${listen}"
[upstream]
provider      = "oidc"
issuer        = "${provider}"
client_id     = "portcullis"
client_secret = { env = "UPSTREAM_SECRET" }
[client_documents]
enabled = false
[[resource]]
path   = "/mcp"
target = "${target}"
scopes = ["use"]
rule   = [{ roles = ["Admin", "User"], allow = ["use"] }]
[[resource]]
path           = "/tools"
target         = "${target}"
scopes         = ["use", "sum", "env"]
default_scopes = ["use"]
tools          = { get-sum = ["sum"], get-env = ["env"] }
rule           = [{ roles = ["Admin"], allow = ["use", "sum", "env"] }, { roles = ["User"], allow = ["use", "sum"] }]
`;

export async function startSite(binary) {
  const folder = mkdtempSync(join(tmpdir(), "portcullis-site-"));
  const [port, providerPort, serverPort] = [await freePort(), await freePort(), await freePort()];
  const url = `http://127.0.0.1:${port}`;
  const direct = `http://127.0.0.1:${serverPort}/mcp`;
  const processes = [];
  const stop = async () => {
    for (const process of processes.reverse()) await process.stop();
    rmSync(folder, { recursive: true });
  };
  try {
    const everything = join(here, "node_modules/@modelcontextprotocol/server-everything/dist/index.js");
    processes.push(await startProcess("node", [everything, "streamableHttp"], "listening on port", { env: { PATH: process.env.PATH, PORT: String(serverPort) } }));
    processes.push(await startProcess("node", [join(here, "provider.mjs"), String(providerPort), `${url}/auth/callback`], "listening"));
    writeFileSync(join(folder, "portcullis.toml"), config(url, `127.0.0.1:${port}`, `http://127.0.0.1:${providerPort}`, direct));
    processes.push(await startProcess(binary, ["serve"], "serving", { cwd: folder, env: { ...process.env, UPSTREAM_SECRET: SECRET, PORTCULLIS_LOG: "info" } }));
  } catch (error) {
    await stop();
    throw error;
  }
  return { url, direct, mcp: `${url}/mcp`, tools: `${url}/tools`, log: () => processes[2].said(), stop };
}
