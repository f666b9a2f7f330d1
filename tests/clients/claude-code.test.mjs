// Claude Code without an account: it signs in with `claude mcp login`, and calls tools when a model that is no
// model says so. It wants a terminal, which `script` is. Run by scripts/test-clients.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { startModel } from "./model.mjs";
import { open } from "./person.mjs";
import { startSite } from "./site.mjs";

// The program itself; npm does not run the installation script that would link it.
const claude = join(dirname(fileURLToPath(import.meta.url)), "node_modules/@anthropic-ai/claude-code-linux-x64/claude");

let site, model, home, env;
before(async () => {
  site = await startSite(process.env.PORTCULLIS);
  model = await startModel();
  home = mkdtempSync(join(tmpdir(), "portcullis-claude-code-"));
  env = {
    PATH: process.env.PATH,
    HOME: home,
    TERM: "dumb",
    BROWSER: "true", // the program that opens nothing
    ANTHROPIC_BASE_URL: model.url,
    ANTHROPIC_API_KEY: "sk-ant-none",
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
    ENABLE_TOOL_SEARCH: "false",
  };
  for (const name of ["tools", "mcp"]) await run(claude, ["mcp", "add", "--transport", "http", name, site[name]]);
});
after(async () => {
  model?.stop();
  await site?.stop();
  rmSync(home, { recursive: true, force: true });
});

// Runs a program to its end; `hear` gets what it has said so far.
async function run(command, args, hear = () => {}) {
  const child = spawn(command, args, { stdio: [command === "script" ? "pipe" : "ignore", "pipe", "pipe"], cwd: home, env });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => hear(said += data));
  const code = await new Promise((resolve) => child.on("close", resolve));
  return { code, said: said.replace(/\x1b\[[0-9;?]*[a-zA-Z]/g, "").trim() };
}

async function login(name, person, decision) {
  let link;
  const ended = await run("script", ["-qec", `${claude} mcp login ${name}`, "/dev/null"], async (said) => {
    const found = /(http:\S+\/authorize\?\S+)\r?\n/.exec(said)?.[1];
    if (!found || link) return;
    link = new URL(found);
    const callback = link.searchParams.get("redirect_uri");
    await fetch(`${callback}?${await open(link.href, person, callback, decision)}`);
  });
  return { ...ended, asked: link?.searchParams };
}

// Has a tool called, and what the model hears of it.
const call = (tool, input) => run(claude, ["-p", `CALL mcp__tools__${tool} ${JSON.stringify(input)} END`, "--allowedTools", "mcp__tools__*"]);
const credentials = () => join(home, ".claude/.credentials.json");

test("it signs in, calls a tool, and is refreshed when five minutes are left", async () => {
  const { code, said, asked } = await login("tools", "somebody");
  assert.equal(code, 0, said);
  assert.match(asked.get("redirect_uri"), /^http:\/\/localhost:\d+\/callback$/);
  assert.match((await run(claude, ["mcp", "list"])).said, /tools: .*Connected/);
  assert.equal((await call("echo", { message: "Tea" })).said, "Echo: Tea");

  const kept = JSON.parse(readFileSync(credentials(), "utf8"));
  const tokens = Object.values(kept.mcpOAuth).find(({ serverName }) => serverName === "tools");
  const before = tokens.refreshToken;
  tokens.expiresAt = Date.now() + 299_000;
  writeFileSync(credentials(), JSON.stringify(kept));
  assert.equal((await call("echo", { message: "Coffee" })).said, "Echo: Coffee");
  const now = Object.values(JSON.parse(readFileSync(credentials(), "utf8")).mcpOAuth).find(({ serverName }) => serverName === "tools");
  assert.notEqual(now.refreshToken, before);
});

test("it passes on why a tool is refused for good, and asks to sign in where that helps", async () => {
  const never = await call("get-env", {});
  console.log(`Claude Code's model reads: ${never.said}`);
  assert.match(never.said, /not allowed to use get-env.*administrator/);
  const more = await call("get-sum", { a: 2, b: 3 });
  console.log(`Claude Code's model reads: ${more.said}`);
  assert.match(more.said, /re-authorization/);
  const { asked } = await login("tools", "somebody");
  assert.ok(asked.get("scope").split(" ").includes("sum"), asked.get("scope"));
  assert.match((await call("get-sum", { a: 2, b: 3 })).said, /5/);
});

test("it says that a person pressed Deny", async () => {
  const { code, said } = await login("mcp", "somebody", "deny");
  console.log(`Claude Code shows: ${said.split("\n").at(-1)}`);
  assert.equal(code, 1);
  assert.match(said, /access_denied.*did not approve/);
});
