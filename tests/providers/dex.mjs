// A real Dex: two people with passwords of its own, Dex's stand-in for a directory with groups, memory in place
// of a database.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request as send } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../browser/port.mjs";

// bcrypt of "password".
const PASSWORD = "$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W";

// Dex's `sub`: two texts in a protocol buffer.
const text = (field, value) => [field * 8 + 2, value.length, ...Buffer.from(value)];
export const dexSubject = (user, connector) => Buffer.from([...text(1, user), ...text(2, connector)]).toString("base64url");

const config = (issuer, port, redirectUri, secret) => ({
  issuer,
  storage: { type: "memory" },
  web: { http: `127.0.0.1:${port}` },
  logger: { level: "error" },
  expiry: { refreshTokens: { reuseInterval: "3s", validIfNotUsedFor: "2160h" } },
  staticClients: [{ id: "portcullis", name: "Portcullis", secret, redirectURIs: [redirectUri] }],
  enablePasswordDB: true,
  staticPasswords: ["alice", "bob"].map((username) => ({
    email: `${username}@example.com`,
    hash: PASSWORD,
    username,
    userID: username,
  })),
  connectors: [{ type: "mockCallback", id: "directory", name: "Directory" }],
});

// Passes everything on to Dex and counts whose refresh tokens it accepted: Dex itself does not tell.
async function startCounter(port) {
  const asked = {};
  const server = createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      const body = Buffer.concat(chunks);
      const { method, url: path, headers } = request;
      const onward = send({ host: "127.0.0.1", port, method, path, headers }, (answer) => {
        const parts = [];
        answer.on("data", (part) => parts.push(part));
        answer.on("end", () => {
          const whole = Buffer.concat(parts);
          if (answer.statusCode === 200 && new URLSearchParams(String(body)).get("grant_type") === "refresh_token") {
            const claims = JSON.parse(Buffer.from(JSON.parse(whole).id_token.split(".")[1], "base64url"));
            const person = claims.email.split("@")[0];
            asked[person] = (asked[person] ?? 0) + 1;
          }
          response.writeHead(answer.statusCode, answer.headers).end(whole);
        });
      });
      onward.on("error", () => response.writeHead(502).end());
      onward.end(body);
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { port: server.address().port, asked, stop: () => server.close() };
}

export async function startDex(binary, redirectUri, secret) {
  const folder = mkdtempSync(join(tmpdir(), "portcullis-dex-"));
  const port = await freePort();
  const counter = await startCounter(port);
  const issuer = `http://127.0.0.1:${counter.port}/dex`;
  writeFileSync(join(folder, "dex.json"), JSON.stringify(config(issuer, port, redirectUri, secret)));
  const child = spawn(binary, ["serve", join(folder, "dex.json")], { stdio: ["ignore", "inherit", "inherit"] });
  const ended = new Promise((resolve) => child.on("exit", resolve));
  const up = async () => (await fetch(`${issuer}/.well-known/openid-configuration`).catch(() => ({}))).ok;
  for (let n = 0; !(await up()); n++) {
    if (n > 100 || child.exitCode !== null) throw new Error("Dex does not answer");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return {
    issuer,
    asked: async (person) => counter.asked[person] ?? 0,
    async stop() {
      child.kill("SIGTERM");
      await ended;
      counter.stop();
      rmSync(folder, { recursive: true });
    },
  };
}
