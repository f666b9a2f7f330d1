// npm's server-everything behind the gateway: every tool gives what it gives without us, in one session with one
// id; for the official TypeScript SDK and for the official Go SDK, which gives up when the id of a session
// changes. Run by scripts/test-clients.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { everyTool, tokenFor } from "./every-tool.mjs";
import { open } from "./person.mjs";
import { startSite } from "./site.mjs";
import { Told } from "./told.mjs";

let site;
before(async () => { site = await startSite(process.env.PORTCULLIS); });
after(() => site?.stop());

test("every tool gives through the gateway what it gives without it, in a session with one id", async () => {
  // The second has rules for single tools: there the gateway reads bodies and remembers tasks.
  const [plain, strict] = [await tokenFor(site.url, site.mcp, "somebody"), await tokenFor(site.url, site.tools, "admin", "use sum env")];
  const [direct, ...ways] = await Promise.all([
    everyTool(site.direct),
    everyTool(site.mcp, { authorization: `Bearer ${plain}` }),
    everyTool(site.tools, { authorization: `Bearer ${strict}` }),
  ]);
  const names = Object.keys(direct.results);
  console.log(`${names.length} tools: ${names.join(", ")}`);
  assert.ok(names.length >= 13, names.join());
  const failed = names.filter((name) => direct.results[name].some((result) => result.thrown || result.isError));
  assert.deepEqual(failed, [], JSON.stringify(failed.map((name) => direct.results[name])).slice(0, 2000));
  assert.equal(direct.ids.size, 1);
  for (const through of ways) {
    for (const name of names) assert.deepEqual(through.results[name], direct.results[name], name);
    assert.deepEqual(Object.keys(through.results), names);
    assert.equal(through.ids.size, 1, [...through.ids].join("\n"));
  }
});

const REDIRECT_URI = "http://127.0.0.1:53128/callback"; // of go/main.go
const as = (person, decision) => (url) => open(url, person, REDIRECT_URI, decision);

test("the Go SDK signs in, calls tools in one session, and is refreshed without a person", async () => {
  const go = new Told(process.env.GO_CLIENT, []);
  try {
    await go.get({ do: "connect", url: site.mcp }, as("somebody"));
    const { tools } = await go.get({ do: "list" });
    assert.ok(tools.length >= 12, JSON.stringify(tools));
    const first = await go.get({ do: "state" });
    for (let n = 0; n < 20; n++) await go.get({ do: "ping" });
    const { content } = await go.get({ do: "call", tool: "get-sum", arguments: { a: 2, b: 3 } });
    assert.match(content[0].text, /5/);

    await go.get({ do: "expire" });
    const { content: [echoed] } = await go.get({ do: "call", tool: "echo", arguments: { message: "Tea" } });
    assert.match(echoed.text, /Tea/);
    assert.deepEqual(await go.get({ do: "state" }), { ...first, asked: 1, renewed: first.renewed + 1 });
  } finally {
    await go.stop();
  }
});

test("the Go SDK steps up where the rules allow it, and reads why where they do not", async () => {
  const go = new Told(process.env.GO_CLIENT, []);
  try {
    await go.get({ do: "connect", url: site.tools }, as("somebody"));
    const { content } = await go.get({ do: "call", tool: "get-sum", arguments: { a: 2, b: 3 } }, as("somebody"));
    assert.match(content[0].text, /5/);
    assert.equal((await go.get({ do: "state" })).asked, 2);

    // Nobody is asked: signing in again would not help.
    const refused = await go.get({ do: "call", tool: "get-env", arguments: {} });
    console.log(`the Go SDK shows: ${refused.content[0].text}`);
    assert.equal(refused.isError, true);
    assert.match(refused.content[0].text, /not allowed to use get-env.*administrator/);
  } finally {
    await go.stop();
  }
});

test("the Go SDK learns that its person pressed Deny", async () => {
  const go = new Told(process.env.GO_CLIENT, []);
  try {
    const { error } = await go.do({ do: "connect", url: site.mcp }, as("somebody", "deny"));
    console.log(`the Go SDK shows: ${error}`);
    assert.match(error, /access_denied/);
  } finally {
    await go.stop();
  }
});
