// The administrator's pages in headless Chromium: what a press of a button does to people and clients,
// and whether everybody can read and reach everything.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { DESKTOP, PHONE, assertReadable, newPage, signIn, startBrowser } from "./browser.mjs";
import { authorization, redeem, register, startCallback, startDemo, startReceiver } from "./demo.mjs";

let browser, demo, callback, admin;

before(async () => {
  demo = await startDemo(process.env.PORTCULLIS, ["--populated"]);
  callback = await startCallback();
  browser = await startBrowser();
  admin = await newPage();
  await signInAsAlice(admin);
});

after(async () => {
  await browser?.close();
  callback?.stop();
  await demo?.stop();
});

async function signInAsAlice(page) {
  await page.goto(`${demo.admin}/`);
  await page.locator("main button, form button").first().click();
  await page.waitForURL(`${demo.idp}/**`);
  await signIn(page, "alice");
  await page.waitForURL(`${demo.admin}/**`);
}

const clientPage = (id) => `${demo.admin}/client?id=${id}`;

// What ends, blocks, refuses or deletes something has a page in between.
const ASKS_FIRST = ["block", "refuse", "delete", "end"];

async function press(action, id) {
  await admin.goto(clientPage(id));
  await admin.locator(`button[value=${action}]`).click();
  if (ASKS_FIRST.includes(action)) {
    await admin.waitForURL("**/confirm?**");
    await admin.locator(`button[value=${action}]`).click();
  }
  await admin.locator("[role=status]").waitFor();
}

// Everybody's way from Connect to the end of the sign-in.
async function connect(page, id, person) {
  const asked = authorization(demo, id, callback.redirectUri);
  await page.goto(asked.url);
  await page.locator("button[value=approve]").click();
  await page.waitForURL(`${demo.idp}/**`);
  await signIn(page, person);
  return asked;
}

// A client that is approved, with tokens of bob.
async function connected(name) {
  const id = await register(demo, { client_name: name, redirect_uris: [callback.redirectUri] });
  const page = await newPage();
  const { verifier } = await connect(page, id, "bob");
  await page.waitForURL("**/waiting**");
  await press("approve", id);
  const answer = await callback.next();
  await page.context().close();
  return { id, tokens: await redeem(demo, id, callback.redirectUri, answer.get("code"), verifier) };
}

const mcp = (token, body, extra = {}) => fetch(demo.mcp, {
  method: body ? "POST" : "GET",
  headers: { authorization: `Bearer ${token}`, "content-type": "application/json", accept: "application/json, text/event-stream", ...extra },
  body: body && JSON.stringify({ jsonrpc: "2.0", id: 1, ...body }),
});

test("a client is approved, and the waiting person goes on by themselves", async () => {
  const id = await register(demo, { client_name: "Waits", redirect_uris: [callback.redirectUri] });
  const person = await newPage();
  const { verifier, state } = await connect(person, id, "bob");
  await person.waitForURL("**/waiting**");
  await admin.goto(`${demo.admin}/clients?standing=waiting`);
  await admin.getByRole("link", { name: "Waits" }).first().click();
  await admin.getByRole("button", { name: "Approve" }).click();
  const answer = await callback.next();
  assert.equal(answer.get("state"), state);
  const tokens = await redeem(demo, id, callback.redirectUri, answer.get("code"), verifier);
  assert.equal(tokens.scope, "create:todos");
  assert.deepEqual([...person.complaints, ...admin.complaints], []);
});

test("a webhook comes within five seconds after a client began to wait, and leads to its page", async () => {
  const receiver = await startReceiver();
  const other = await startDemo(process.env.PORTCULLIS, ["--client-approval", "first_use", "--notify", receiver.url]);
  try {
    const id = await register(other, { client_name: "Waits and tells", redirect_uris: [callback.redirectUri] });
    const person = await newPage();
    await person.goto(authorization(other, id, callback.redirectUri).url);
    await person.locator("button[value=approve]").click();
    await person.waitForURL(`${other.idp}/**`);
    await signIn(person, "bob");
    await person.waitForURL("**/waiting**");
    const begun = Date.now();
    const { body } = await receiver.next();
    const took = Date.now() - begun;
    assert.ok(took < 5000, `the webhook came after ${took} ms`);
    assert.equal(body.type, "client_waits");
    assert.equal(body.data.about[0].client.name, "Waits and tells");
    assert.equal(body.data.link, `${other.admin.replace(/\/$/, "")}/client?id=${id}`);
    const page = await newPage();
    await page.goto(body.data.link);
    await page.locator("main button, form button").first().click();
    await page.waitForURL(`${other.idp}/**`);
    await signIn(page, "alice");
    await page.waitForURL(body.data.link);
    await page.getByRole("button", { name: "Approve" }).waitFor();
    await page.context().close();
    await person.context().close();
  } finally {
    await other.stop();
    receiver.stop();
  }
});

test("a grant is ended while its event stream is open: the stream ends within a second", async () => {
  const { id, tokens } = await connected("Streams");
  const initialize = { method: "initialize", params: { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "t", version: "1" } } };
  const begun = await mcp(tokens.access_token, initialize);
  assert.equal(begun.status, 200);
  const session = { "mcp-session-id": begun.headers.get("mcp-session-id"), "mcp-protocol-version": "2025-06-18" };
  const stream = await mcp(tokens.access_token, null, session);
  assert.equal(stream.status, 200);
  const reader = stream.body.getReader();
  await reader.read();
  const ended = (async () => {
    try {
      while (!(await reader.read()).done);
    } catch {
      // cut in the middle is ended, too
    }
    return Date.now();
  })();
  await admin.goto(`${demo.admin}/grants?client=${id}`);
  await admin.locator("button[value=one]").click();
  await admin.waitForURL("**/confirm?**");
  const pressed = Date.now();
  await admin.locator("button[value=one]").click();
  const took = (await ended) - pressed;
  assert.ok(took < 1000, `the stream ended after ${took} ms`);
  const call = await mcp(tokens.access_token, { method: "tools/list" }, session);
  assert.equal(call.status, 401);
});

test("a client is blocked: refresh and authorize are refused, with a page that says so", async () => {
  const { id, tokens } = await connected("Blocked");
  await press("block", id);
  const refresh = await fetch(`${demo.url}/token`, {
    method: "POST",
    body: new URLSearchParams({ grant_type: "refresh_token", client_id: id, refresh_token: tokens.refresh_token }),
  });
  assert.equal(refresh.status, 400);
  assert.equal((await refresh.json()).error, "invalid_grant");
  const page = await newPage();
  const answer = await page.goto(authorization(demo, id, callback.redirectUri).url);
  assert.equal(answer.status(), 403);
  await page.getByRole("heading", { name: "This application is blocked" }).waitFor();
});

test("in three clicks an administrator finds out why Mallory was refused and what would let her in", async () => {
  const { id } = await connected("Refuses Mallory"); // approved, so that rules decide and nobody waits
  const person = await newPage();
  await connect(person, id, "mallory");
  await person.getByRole("heading").first().waitFor();
  const shown = (await person.locator("main").textContent()).match(/[0-9A-Z]{4}-[0-9A-Z]{4}/)[0];
  await admin.goto(`${demo.admin}/`);
  await admin.locator("nav a[href='/refused']").click();
  await admin.getByRole("link", { name: "Mallory Miller" }).first().click();
  const sentence = admin.locator("p.notice").first();
  assert.match(await sentence.textContent(), /Give them the role Admin at .+ or give them the role User at /);
  await admin.getByText("No rule matches").first().waitFor();
  await admin.getByRole("link", { name: shown }).waitFor();
  // The reference that she reads out leads there too.
  await admin.goto(`${demo.admin}/refused`);
  await admin.locator("#q").fill(shown);
  await admin.getByRole("button", { name: "Search" }).click();
  await admin.getByRole("link", { name: "Mallory Miller" }).click();
  await admin.getByRole("heading", { name: "What would let them in" }).waitFor();
  assert.deepEqual(admin.complaints, []);
  await person.context().close();
});

test("a draft of a rule shows who gains, and its text can be copied", async () => {
  await admin.goto(`${demo.admin}/servers`);
  await admin.getByRole("link", { name: "Draft from it: rule 2" }).click();
  await admin.locator("#roles").fill("User\nGuest");
  await admin.getByRole("button", { name: "Show who gains or loses" }).click();
  await admin.locator("#toml").waitFor();
  assert.match(await admin.locator("#toml").inputValue(), /roles = \["User", "Guest"\]/);
  assert.deepEqual(admin.complaints, []);
});

async function tabTo(page, reached) {
  for (let n = 0; n < 60; n++) {
    await page.keyboard.press("Tab");
    if (await page.evaluate(reached)) return;
  }
  assert.fail(`not reached by Tab: ${reached}`);
}

test("without a mouse: sign in, block a client and unblock it", async () => {
  const id = await register(demo, { client_name: "Keyboard", redirect_uris: [callback.redirectUri] });
  const page = await newPage();
  await page.goto(`${demo.admin}/`);
  await tabTo(page, () => document.activeElement.tagName === "BUTTON");
  await page.keyboard.press("Enter");
  await page.waitForURL(`${demo.idp}/**`);
  await tabTo(page, () => document.activeElement.name === "username");
  await page.keyboard.type("alice");
  await tabTo(page, () => document.activeElement.name === "password");
  await page.keyboard.type("alice");
  await page.keyboard.press("Enter");
  await page.waitForURL(`${demo.admin}/**`);
  await tabTo(page, () => document.activeElement.getAttribute("href") === "/clients");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/clients");
  await tabTo(page, () => document.activeElement.name === "q");
  await page.keyboard.type(id);
  await page.keyboard.press("Enter");
  await page.waitForURL("**/clients?q=**");
  await tabTo(page, () => (document.activeElement.getAttribute("href") ?? "").startsWith("/client?id="));
  await page.keyboard.press("Enter");
  await page.waitForURL("**/client?id=**");
  for (const action of ["block", "unblock"]) {
    await tabTo(page, action === "block" ? () => document.activeElement.value === "block" : () => document.activeElement.value === "unblock");
    await page.keyboard.press("Enter");
    if (action === "block") {
      await page.waitForURL("**/confirm?**");
      await tabTo(page, () => document.activeElement.value === "block");
      await page.keyboard.press("Enter");
    }
    await page.waitForURL(`**&done=${action}`);
    await page.locator("[role=status]").waitFor();
  }
  assert.deepEqual(page.complaints, []);
  await page.context().close();
});

// Every page behind a sign-in: its name, and where it is. Other pages join here.
const someClient = async (page) => {
  await page.goto(`${demo.admin}/clients`);
  return page.locator("main td a").first().getAttribute("href");
};
const someRefused = async (page) => {
  await page.goto(`${demo.admin}/refused`);
  return page.locator("main td a").first().getAttribute("href");
};
const someWaitingClient = async (page) => {
  await page.goto(`${demo.admin}/clients?standing=waiting`);
  return page.locator("main td a").first().getAttribute("href");
};
const PAGES = [
  { name: "overview", path: "/" },
  { name: "clients", path: "/clients" },
  { name: "clients-found", path: "/clients?q=cl" },
  { name: "clients-waiting", path: "/clients?standing=waiting" },
  { name: "clients-none", path: "/clients?q=nothing-is-called-so" },
  { name: "client", path: someClient },
  { name: "clients-by-last-use", path: "/clients?sort=last-use" },
  { name: "clients-unused", path: "/clients?standing=unused" },
  { name: "clients-unused-delete", path: "/confirm?act=delete_unused&since=2000000000" },
  { name: "client-waiting", path: someWaitingClient },
  { name: "client-new", path: "/clients/new" },
  { name: "client-edit", path: async (page) => (await someClient(page)).replace("/client?", "/clients/edit?") },
  { name: "patterns", path: "/clients/patterns" },
  { name: "client-block", path: async (page) => (await someClient(page)).replace("/client?", "/confirm?act=block_client&") },
  { name: "person-sign-out", path: "/confirm?act=sign_out_person&sub=oidc:demo-aiko-andersson" },
  { name: "before-a-day", path: "/confirm?act=before&day=2999-01-01" },
  { name: "grants", path: "/grants" },
  { name: "grants-ended", path: "/grants?ended=1" },
  { name: "grants-found", path: "/grants?q=cl" },
  { name: "grants-none", path: "/grants?q=nobody-is-called-so" },
  { name: "services", path: "/connections" },
  { name: "services-of-one", path: "/connections?name=calendar" },
  { name: "services-broken", path: "/connections?broken=1" },
  { name: "services-none", path: "/connections?q=nobody-is-called-so" },
  { name: "services-remove", path: "/confirm?act=remove_services&name=calendar" },
  { name: "people", path: "/people" },
  { name: "people-found", path: "/people?q=hana&oldest=1" },
  { name: "people-none", path: "/people?q=nobody-is-called-so" },
  { name: "person", path: "/person?sub=oidc:demo-alice" },
  { name: "refused", path: "/refused" },
  { name: "refused-none", path: "/refused?q=nobody-is-called-so" },
  { name: "refused-person", path: `/refused/person?sub=oidc:demo-mallory&server=${encodeURIComponent("http://127.0.0.1:1/gone")}` },
  { name: "refused-mallory", path: someRefused },
  { name: "servers", path: "/servers" },
  { name: "servers-tried", path: "/servers?sub=alice" },
  { name: "draft", path: "/servers/draft?rule=1" },
  { name: "usage", path: "/usage" },
  { name: "usage-month", path: "/usage?range=30d&sort=time" },
  { name: "usage-none", path: "/usage?tool=nothing-is-called-so" },
  { name: "keys", path: "/keys" },
  { name: "notifications", path: "/notifications" },
  { name: "audit", path: "/audit" },
  { name: "audit-refusals", path: "/audit?q=hana&show=refusals&last=day&routine=1" },
  { name: "audit-verified", path: "/audit?verify=1" },
  { name: "audit-none", path: "/audit?ref=0000-0000" },
];

const looks = [DESKTOP, PHONE].flatMap((viewport) => ["light", "dark"].flatMap((colorScheme) => ["en-US", "ja-JP"].map((locale) => ({ locale, colorScheme, viewport }))));

async function readable(page, called) {
  await page.locator("h1").waitFor();
  await assertReadable(page, called);
}

for (const look of looks) {
  const device = look.viewport.width < 500 ? "phone" : "desktop";
  const called = `${device}-${look.colorScheme}-${look.locale.slice(0, 2)}`;
  test(`every admin page, and /account, is readable: ${called}`, async () => {
    const page = await newPage({ ...look, reducedMotion: "reduce" });
    await page.goto(`${demo.admin}/`);
    await readable(page, `admin-sign-in-${called}`);
    await signInAsAlice(page);
    for (const { name, path } of PAGES) {
      const where = typeof path === "function" ? await path(page) : path;
      const answer = await page.goto(`${demo.admin}${where}`);
      assert.equal(answer.status(), 200, name);
      await readable(page, `admin-${name}-${called}`);
    }
    await page.goto(`${demo.url}/account`);
    await readable(page, `account-sign-in-${called}`);
    await page.locator("main button").click();
    await page.waitForURL(`${demo.url}/account`);
    await readable(page, `account-${called}`);
    await page.goto(`${demo.url}/account/confirm`);
    await readable(page, `account-confirm-${called}`);
    await page.context().close();
    const person = await newPage({ ...look, reducedMotion: "reduce" });
    await connect(person, await register(demo, { client_name: `Waits ${called}`, redirect_uris: [callback.redirectUri] }), "bob");
    await person.waitForURL("**/waiting**");
    // The page looks again by itself, so that a person need not.
    await assertReadable(person, `waiting-${called}`, ["meta-refresh"]);
    await person.context().close();
  });
}

test("every link on every admin page of a full server leads to a page", async () => {
  await admin.goto(`${demo.admin}/`);
  const known = new Set([`${demo.admin}/`]);
  const waiting = [...known];
  let pages = 0;
  while (waiting.length > 0 && pages < 400) {
    const where = waiting.shift();
    const answer = await admin.request.get(where, { headers: { accept: "text/html" } });
    assert.equal(answer.status(), 200, where);
    pages += 1;
    if (/\/audit\/export|\/usage\/export|\/usage\?/.test(where)) continue; // a file, or one of ever more searches
    const html = await answer.text();
    for (const [, href] of html.matchAll(/href="(\/[^"#]*)/g)) {
      const url = demo.admin + href.replaceAll("&amp;", "&").replaceAll("&#38;", "&");
      if (!known.has(url)) {
        known.add(url);
        waiting.push(url);
      }
    }
  }
  assert.ok(pages > 100, `${pages} pages`);
});

test("on a phone a checkbox keeps its size, and its label stays on a line", async () => {
  const page = await newPage({ viewport: { width: 390, height: 800 } });
  await signInAsAlice(page);
  for (const path of ["/people", "/grants"]) {
    await page.goto(`${demo.admin}${path}`);
    const box = await page.locator("input[type=checkbox]").boundingBox();
    assert.ok(box.width < 30, `${path}: the checkbox is ${box.width} wide`);
    const label = await page.locator("label.check").boundingBox();
    assert.ok(label.height < 60, `${path}: the label is ${label.height} high`);
  }
  await page.goto(`${demo.admin}/`);
  const days = await page.locator(".days span").all();
  assert.equal(days.length, 7);
  for (const day of days) {
    const cut = await day.evaluate((span) => span.scrollWidth > span.clientWidth + 1);
    assert.ok(!cut, `${await day.textContent()} is cut`);
  }
  await page.context().close();
});

test("the audit trail is sentences with names, its codes are in the details, and it fits a phone", async () => {
  const page = await newPage({ viewport: { width: 390, height: 800 } });
  await signInAsAlice(page);
  await page.goto(`${demo.admin}/audit`);
  const lines = await page.locator("table.events tbody tr").count();
  assert.equal(lines, 50);
  const told = await page.locator("table.events tbody tr").first().innerText();
  assert.match(told, /Alice Adams signed in to the admin pages/);
  assert.match(told, /(just now|min ago) \(\d\d:\d\d:\d\d UTC\)/);
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  assert.ok(height < 8000, `${lines} lines are ${height} px high`);
  assert.ok(!(await page.locator("code", { hasText: "console_signed_in" }).first().isVisible()));
  await page.locator("table.events details summary").first().click();
  assert.ok(await page.locator("code", { hasText: "console_signed_in" }).first().isVisible());
  await page.getByRole("link", { name: "Next page" }).click();
  await page.waitForURL("**/audit?before=**");
  await page.getByRole("link", { name: "Previous page" }).click();
  await page.waitForURL("**/audit?after=**");
  await page.getByRole("link", { name: "Refusals" }).click();
  await page.waitForURL("**/audit?show=refusals");
  const refusals = await page.locator("table.events .told").allInnerTexts();
  assert.ok(refusals.some((told) => /^\w+ \w+ was refused To-do list/.test(told)), refusals.join("\n"));
  assert.deepEqual(page.complaints, []);
  await page.context().close();
});

test("connections are found by a name, counted, and turned round", async () => {
  const page = await newPage();
  await signInAsAlice(page);
  await page.goto(`${demo.admin}/grants`);
  await page.getByRole("searchbox").fill("hana dubois");
  await page.getByRole("button", { name: "Search" }).click();
  await page.waitForURL("**/grants?q=hana**");
  const people = await page.locator("td[data-label=Person]").allInnerTexts();
  assert.ok(people.length > 0 && people.every((name) => name === "Hana Dubois"), people.join());
  const since = () => page.locator("td[data-label=Since] time").evaluateAll((all) => all.map((time) => time.dateTime));
  const newest = await since();
  await page.getByRole("link", { name: /^Since/ }).click();
  await page.waitForURL("**oldest=1**");
  assert.deepEqual(await since(), newest.reverse());
  await page.context().close();
});

test("Cancel and Continue are of the same size", async () => {
  const id = await register(demo, { client_name: "Sizes", redirect_uris: [callback.redirectUri] });
  for (const viewport of [{ width: 1280, height: 900 }, { width: 390, height: 800 }]) {
    const page = await newPage({ viewport });
    await page.goto(authorization(demo, id, callback.redirectUri).url);
    await page.locator("button[value=approve]").waitFor(); // armed
    const deny = await page.locator("button[value=deny]").boundingBox();
    const approve = await page.locator("button[value=approve]").boundingBox();
    assert.ok(Math.abs(deny.width - approve.width) < 1.5, `${deny.width} and ${approve.width}`);
    await page.context().close();
  }
});

test("a client is approved from the list, and its person continues", async () => {
  const id = await register(demo, { client_name: "From the list", redirect_uris: [callback.redirectUri] });
  const person = await newPage();
  const { state } = await connect(person, id, "bob");
  await person.waitForURL("**/waiting**");
  await admin.goto(clientPage(id));
  await admin.getByText("1 person waits · first asked").waitFor();
  await admin.getByRole("link", { name: "Bob Brown" }).first().waitFor();
  await admin.goto(`${demo.admin}/clients?standing=waiting`);
  await admin.getByRole("button", { name: "Approve From the list" }).click();
  await admin.getByText("The client is approved").waitFor();
  const answer = await callback.next();
  assert.equal(answer.get("state"), state);
  await person.context().close();
});

test("everything that goes to one website is approved by a pattern", async () => {
  await admin.goto(`${demo.admin}/clients/patterns`);
  await admin.getByLabel("Website, such as chatgpt.com").fill("https://chatgpt.com");
  await admin.getByRole("button", { name: "Add" }).click();
  await admin.getByRole("alert").waitFor();
  await admin.getByLabel("Website, such as chatgpt.com").fill("chatgpt.com");
  await admin.getByRole("button", { name: "Add" }).click();
  await admin.getByText("The pattern is in force").waitFor();
  const redirectUri = "https://chatgpt.com/connector/oauth/tried-in-a-browser";
  const id = await register(demo, { client_name: "Tried in a browser", redirect_uris: [redirectUri] });
  const person = await newPage();
  // Nothing answers there from here: where the browser is sent is enough.
  await person.route("https://chatgpt.com/**", (route) => route.fulfill({ body: "arrived" }));
  await person.goto(authorization(demo, id, redirectUri).url);
  await person.locator("button[value=approve]").click();
  await person.waitForURL(`${demo.idp}/**`);
  await signIn(person, "bob");
  await person.waitForURL("https://chatgpt.com/**");
  assert.ok(new URL(person.url()).searchParams.get("code"));
  await person.context().close();
  await admin.getByRole("button", { name: "Remove chatgpt.com" }).click();
  await admin.waitForURL("**/confirm?**");
  await admin.locator("button[value=remove]").click();
  await admin.getByText("The pattern is removed").waitFor();
});

// The last test: it ends everything.
test("128 connections end only after the confirmation page", async () => {
  const live = async () => {
    await admin.goto(`${demo.admin}/confirm?act=before&day=2999-01-01`);
    return Number.parseInt(await admin.locator("main strong").first().textContent(), 10);
  };
  const number = await live();
  assert.ok(number >= 128, `${number} connections`);
  await admin.goto(`${demo.admin}/grants`);
  await admin.locator("input[name=day]").fill("2999-01-01");
  await admin.locator("button[value=before]").click();
  await admin.waitForURL("**/confirm?**");
  assert.equal(await live(), number, "the first click ends nothing");
  const confirm = async (typed, reason) => {
    await admin.getByLabel("Reason", { exact: true }).fill(reason);
    await admin.getByLabel(`Type ${number} to confirm`).fill(typed);
    await admin.locator("button[value=before]").click();
  };
  await confirm(String(number - 1), "INC-128");
  await admin.getByRole("alert").waitFor();
  assert.equal(await live(), number, "a wrong number ends nothing");
  await confirm(String(number), "");
  assert.ok(await admin.locator("input[name=reason]:invalid").count(), "a reason is needed");
  assert.equal(await live(), number, "without a reason nothing ends");
  await confirm(String(number), "INC-128");
  await admin.locator("[role=status]").waitFor();
  assert.match(await admin.locator("[role=status]").textContent(), new RegExp(`^${number} `));
  await admin.goto(`${demo.admin}/confirm?act=before&day=2999-01-01`);
  await admin.getByText("No connection was given before that day").waitFor();
  await admin.goto(`${demo.admin}/audit?event=grants_revoked`);
  await admin.getByText("INC-128").first().waitFor();
  assert.deepEqual(admin.complaints, []);
});
