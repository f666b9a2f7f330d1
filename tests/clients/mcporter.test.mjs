// mcporter against `portcullis demo`. It listens on another port at each sign-in and registers again after
// `--reset`; it is one client all the same. Run by scripts/test-clients.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { startDemo } from "../browser/demo.mjs";
import { open } from "./person.mjs";

const script = join(dirname(fileURLToPath(import.meta.url)), "node_modules/mcporter/dist/cli.js");

let demo, home;
before(async () => {
  demo = await startDemo(process.env.PORTCULLIS);
  home = mkdtempSync(join(tmpdir(), "portcullis-mcporter-"));
  writeFileSync(join(home, "mcporter.json"), JSON.stringify({ mcpServers: { todos: { baseUrl: demo.mcp } } }));
});
after(async () => {
  await demo?.stop();
  rmSync(home, { recursive: true });
});

// Runs mcporter; when it shows a link, `person` follows it. What it said, and the link.
async function mcporter(args, person, decision) {
  const child = spawn("node", [script, "--config", join(home, "mcporter.json"), ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env.PATH, HOME: home, MCPORTER_OAUTH_NO_BROWSER: "1" },
    cwd: home,
  });
  let said = "", link, page;
  const hear = async (data) => {
    said += data;
    const found = /(http:\S+\/authorize\?\S+)\n/.exec(said)?.[1];
    if (!found || link) return;
    link = new URL(found);
    const callback = link.searchParams.get("redirect_uri");
    const answer = await open(link.href, person, callback, decision);
    page = await (await fetch(`${callback}?${answer}`)).text();
  };
  child.stdout.on("data", hear);
  child.stderr.on("data", hear);
  const code = await new Promise((resolve) => child.on("close", resolve));
  return { code, said, page, asked: link?.searchParams };
}

const vault = () => join(home, ".mcporter/credentials.json");
const entry = (kept) => Object.values(kept.entries)[0];

test("two sign-ins on two ports are one client, and it calls a tool", async () => {
  const first = await mcporter(["auth", "todos"], "bob");
  assert.equal(first.code, 0, first.said);
  const second = await mcporter(["auth", "todos", "--reset"], "bob");
  assert.equal(second.code, 0, second.said);
  assert.notEqual(second.asked.get("redirect_uri"), first.asked.get("redirect_uri"));
  assert.equal(second.asked.get("client_id"), first.asked.get("client_id"));

  const made = await mcporter(["call", "todos.create-todo", "content=Tea"]);
  assert.equal(made.code, 0, made.said);
  assert.equal(JSON.parse(made.said).todo.owner, "Bob Brown");
});

test("a token that the server does not know any more is refreshed, and nobody is asked", async () => {
  const kept = JSON.parse(readFileSync(vault(), "utf8"));
  const before = entry(kept).tokens;
  entry(kept).tokens = { ...before, access_token: "no-longer-good" };
  writeFileSync(vault(), JSON.stringify(kept));
  const made = await mcporter(["call", "todos.create-todo", "content=Coffee"]);
  assert.equal(made.code, 0, made.said);
  assert.equal(made.asked, undefined);
  assert.notEqual(entry(JSON.parse(readFileSync(vault(), "utf8"))).tokens.refresh_token, before.refresh_token);
});

test("it prints why a tool is refused, and asks for no other sign-in", async () => {
  const refused = await mcporter(["call", "todos.purge-todos"]);
  console.log(`mcporter shows: ${refused.said.trim()}`);
  assert.equal(refused.code, 1);
  assert.equal(refused.asked, undefined);
  assert.match(refused.said, /not allowed to use purge-todos.*delete:todos.*administrator/);
});

test("it learns that a person pressed Deny, or has no access", async () => {
  for (const [person, decision] of [["bob", "deny"], ["mallory", "approve"]]) {
    const refused = await mcporter(["auth", "todos", "--reset"], person, decision);
    assert.equal(refused.code, 1);
    assert.match(refused.said, /OAuth error: access_denied/);
    assert.match(refused.page, /access_denied/);
  }
});
