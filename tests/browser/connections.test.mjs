// People connect a further service, use it and disconnect it, in headless Chromium: the demo's calendar, which the tool
// agenda of the demo's to-do server reads.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { DESKTOP, PHONE, assertReadable, newPage, signIn, startBrowser } from "./browser.mjs";
import { authorization, redeem, register, startCallback, startDemo } from "./demo.mjs";

const LOCALES = ["en-US", "de-DE", "es-ES", "fr-FR", "ja-JP", "zh-CN"];
const DAYS = { alice: ["Stand-up", "Access review with Bob"], bob: ["Dentist", "Access review with Alice"] };

let browser, demo, callback, client;

before(async () => {
  demo = await startDemo(process.env.PORTCULLIS);
  callback = await startCallback();
  browser = await startBrowser();
  client = await register(demo, { client_name: "Browser test", redirect_uris: [callback.redirectUri] });
});

after(async () => {
  await browser?.close();
  callback?.stop();
  await demo?.stop();
});

// Connects the client as this person, in the browser of this page; the access token.
async function tokenOf(page, person) {
  const { url, verifier } = authorization(demo, client, callback.redirectUri);
  await page.goto(url);
  await page.locator("button[value=approve]").click();
  await page.waitForURL(`${demo.idp}/**`);
  await signIn(page, person);
  const answer = await callback.next();
  return (await redeem(demo, client, callback.redirectUri, answer.get("code"), verifier)).access_token;
}

async function agenda(token) {
  const response = await fetch(demo.mcp, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json", accept: "application/json, text/event-stream", "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "agenda" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "agenda", arguments: {} } }),
  });
  assert.equal(response.status, 200);
  return (await response.json()).result;
}

// What the tool says while the calendar is not connected: the link in the text.
async function linkFor(token) {
  const { isError, content } = await agenda(token);
  assert.equal(isError, true);
  const link = /http:\/\/\S+\/connect\/calendar\?for=[^\s)]+?(?=[.,)]*(?:\s|$))/.exec(content[0].text);
  assert.ok(link, content[0].text);
  return link[0];
}

async function eventsOf(token) {
  const { isError, structuredContent, content } = await agenda(token);
  assert.equal(isError, false, JSON.stringify(content));
  return structuredContent.events.map(({ what }) => what);
}

// Presses the button of the sign-in page of Portcullis, and signs in at the provider where it asks.
async function signInHere(page, person) {
  await page.locator("main form button").first().click();
  await page.waitForURL((to) => to.href.startsWith(`${demo.idp}/`) || to.pathname.startsWith("/connect/") || to.pathname.startsWith("/account"));
  if (page.url().startsWith(`${demo.idp}/`)) await signIn(page, person);
}

const toCalendar = async (page) => {
  await page.locator("button[value=connect]").click();
  await page.getByRole("heading", { name: "Portcullis wants to use your calendar" }).waitFor();
};
const backHere = (page) => page.waitForURL((to) => to.origin === demo.url && to.pathname.startsWith("/connect/"));

test("a person follows the link of a tool, connects the calendar, uses it, and disconnects it", async () => {
  const page = await newPage();
  const token = await tokenOf(page, "bob");
  const link = await linkFor(token);
  await page.goto(link);
  await signInHere(page, "bob");
  await page.getByRole("heading", { name: "Connect Demo calendar" }).waitFor();
  assert.match(await page.locator("main").textContent(), /To-do list.*See the events of your calendar/s);
  await toCalendar(page);
  await page.getByText("bob@calendar.example.com").waitFor();
  await page.getByRole("button", { name: "Allow" }).click();
  await page.getByRole("heading", { name: "Connected: Demo calendar" }).waitFor();
  assert.deepEqual(await eventsOf(token), DAYS.bob);

  await page.goto(`${demo.url}/account`);
  await page.locator("a[href$='/account/connections']").first().click();
  await page.getByText("bob@calendar.example.com").waitFor();
  assert.match(await page.locator("main").textContent(), /Demo calendar.*To-do list/s);
  await page.locator("button[value=disconnect]").click();
  await page.getByRole("heading", { name: "Disconnect Demo calendar?" }).waitFor();
  await page.locator("button[value=disconnect]").click();
  await page.getByRole("status").waitFor();
  assert.equal(await page.getByText("bob@calendar.example.com").count(), 0);
  assert.equal(await linkFor(token), link);
  assert.deepEqual(page.complaints, []);
  await page.context().close();
});

// Alice sends Bob the address at the calendar that her own browser was led to. If he allowed it for her, her client would
// read his calendar.
test("a connection that somebody else began is not finished in another browser", async () => {
  const attacker = await newPage();
  const attackers = await tokenOf(attacker, "alice");
  await attacker.goto(await linkFor(attackers));
  await signInHere(attacker, "alice");
  await attacker.locator("button[value=connect]").waitFor();
  await attacker.route(`${demo.idp}/**`, (route) => route.abort());
  const toCalendarOfHers = attacker.waitForRequest(`${demo.idp}/calendar/**`);
  await attacker.locator("button[value=connect]").click().catch(() => {});

  const victim = await newPage();
  const victims = await tokenOf(victim, "bob");
  await victim.goto((await toCalendarOfHers).url());
  await victim.getByRole("button", { name: "Allow" }).click();
  await victim.getByRole("heading", { name: "You did not start this connection here" }).waitFor();
  await linkFor(attackers);
  await linkFor(victims);
  await attacker.context().close();
  await victim.context().close();
});

test("a person denies at the calendar, reads that nothing was connected, and can begin again", async () => {
  const page = await newPage();
  const token = await tokenOf(page, "alice");
  await page.goto(await linkFor(token));
  await signInHere(page, "alice");
  await toCalendar(page);
  await page.getByRole("button", { name: "Deny" }).click();
  await page.getByText("You said no at Demo calendar").waitFor();
  await linkFor(token);
  await toCalendar(page);
  await page.getByRole("button", { name: "Allow" }).click();
  await page.getByRole("heading", { name: "Connected: Demo calendar" }).waitFor();
  assert.deepEqual(await eventsOf(token), DAYS.alice);
  assert.deepEqual(page.complaints, []);
  await page.context().close();
});

// Every page as a picture, on each screen, light and dark, in every language at least once on each screen. Two people at
// the same time, each with a calendar of their own.
const looks = [DESKTOP, PHONE].flatMap((viewport) => ["light", "dark"].flatMap((colorScheme) => LOCALES.map((locale) => ({ colorScheme, viewport, locale, reducedMotion: "reduce" }))))
  .filter(({ colorScheme, viewport, locale }) => ["en-US", "ja-JP"].includes(locale) || (colorScheme === "light") === (viewport === PHONE));

async function lookAtAll(look, person) {
  const page = await newPage(look);
  const device = look.viewport === PHONE ? "phone" : "desktop";
  const readable = async (name) => {
    await page.locator("h1").waitFor();
    await assertReadable(page, `${name}-${device}-${look.colorScheme}-${look.locale.slice(0, 2)}`);
  };
  await page.goto(`${demo.url}/connect/calendar?${new URLSearchParams({ for: demo.mcp })}`);
  await readable("connect-sign-in");
  await signInHere(page, person);
  await page.locator("button[value=connect]").waitFor();
  await readable("connect");
  await toCalendar(page);
  await readable("demo-calendar");
  await page.getByRole("button", { name: "Deny" }).click();
  await backHere(page);
  await readable("connect-refused");
  await toCalendar(page);
  await page.getByRole("button", { name: "Allow" }).click();
  await backHere(page);
  await readable("connect-done");
  await page.goto(`${demo.url}/account/connections`);
  await readable("services");
  await page.locator("button[value=disconnect]").click();
  await page.waitForURL(`${demo.url}/account/connections/confirm**`);
  await readable("services-confirm");
  await page.locator("button[value=disconnect]").click();
  await page.getByRole("status").waitFor();
  await readable("services-none");
  await page.goto(`${demo.url}/auth/connect/calendar/callback?state=x&code=y`);
  await readable("connect-from-elsewhere");
  await page.goto(`${demo.url}/connect/nothing?for=x`);
  await readable("connect-unknown");
  await page.context().close();
}

test("the pages of connections are readable everywhere", async () => {
  // The tests before left Alice's calendar connected.
  const page = await newPage();
  await page.goto(`${demo.url}/account/connections`);
  await signInHere(page, "alice");
  await page.locator("button[value=disconnect]").click();
  await page.waitForURL(`${demo.url}/account/connections/confirm**`);
  await page.locator("button[value=disconnect]").click();
  await page.getByRole("status").waitFor();
  await page.context().close();
  const lanes = ["alice", "bob"].map(async (person, lane) => {
    for (const look of looks.filter((_, at) => at % 2 === lane)) await lookAtAll(look, person);
  });
  await Promise.all(lanes);
});
