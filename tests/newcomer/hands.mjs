// What the documents say to do in a browser, and values that differ from run to run.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";

const SCREEN = { viewport: { width: 1500, height: 1000 } };

// The address that a terminal printed.
const printed = (newcomer, pattern) => {
  const found = newcomer.terminals.map(({ output }) => pattern.exec(output)?.[0]).filter(Boolean);
  assert.ok(found.length > 0, `nothing printed ${pattern}`);
  return found.at(-1);
};

async function openInspector(newcomer) {
  const page = await (await newcomer.browser.newContext(SCREEN)).newPage();
  await page.goto(printed(newcomer, /http:\/\/(?:127\.0\.0\.1|localhost):6274\S*/));
  return page;
}

async function flip(page) {
  await page.getByRole("switch").first().click({ force: true });
}

// Inspector may begin more than one navigation on the way to the consent page.
async function pressContinue(page, button = "approve") {
  await page.locator(`button[value=${button}]`).click({ timeout: 60_000 });
}

async function signInAtDemo(page, person) {
  await page.getByLabel("Name").fill(person);
  await page.getByLabel("Password").fill(person);
  await page.getByRole("button", { name: "Sign in" }).click();
}

async function signInAtKeycloak(page, person) {
  await page.locator("#username").fill(person);
  await page.locator("#password").fill(person);
  await page.locator("#kc-login").click();
}

async function isConnected(page) {
  await page.waitForURL(/:6274/);
  await page.getByText(/^Connected/).first().waitFor();
}

async function callTool(page, name, content) {
  await page.getByText("Tools", { exact: true }).first().click();
  await page.getByText(name).first().click();
  if (content) await page.getByRole("textbox", { name: "content" }).fill(content);
  await page.getByRole("button", { name: /Run|Execute|Call/ }).first().click();
}

export const HANDS = {
  "the demo in Inspector": async (newcomer) => {
    const page = await openInspector(newcomer);
    await flip(page);
    await page.waitForURL("http://127.0.0.1:8000/authorize**");
    await page.getByRole("heading", { name: "A program on this computer wants to use To-do list" }).waitFor();
    await pressContinue(page);
    await signInAtDemo(page, "bob");
    await isConnected(page);
    await callTool(page, "Add a to-do", "Tea");
    await page.getByText('"owner"').or(page.getByText("Bob Brown")).first().waitFor();
    await callTool(page, "Delete everything");
    await page.getByText("You are not allowed to use purge-todos").first().waitFor();

    const account = await page.context().newPage();
    await account.goto("http://127.0.0.1:8000/account");
    await account.locator("main button").first().click();
    await account.waitForURL("http://127.0.0.1:8000/account");
    await account.getByRole("button", { name: "Disconnect" }).first().click();
    await account.getByRole("status").first().waitFor();
    await flip(page);
    await flip(page);
    await pressContinue(page, "approve_other");
    await signInAtDemo(page, "alice");
    await isConnected(page);
    await callTool(page, "Delete everything");
    await page.getByText("Deleted 1.").first().waitFor();
    await page.context().close();
  },
  "the test sign-in at Keycloak": async (newcomer) => {
    const page = await (await newcomer.browser.newContext(SCREEN)).newPage();
    await page.goto(printed(newcomer, /http:\/\/127\.0\.0\.1:8080\/realms\/acme\/protocol\S+/));
    await signInAtKeycloak(page, "bob");
    await newcomer.last.ended;
    await page.context().close();
  },
  "a fortune in Inspector": async (newcomer) => {
    const page = await openInspector(newcomer);
    await flip(page);
    await pressContinue(page);
    await signInAtKeycloak(page, "bob");
    await isConnected(page);
    await callTool(page, "get_fortune");
    await page.getByText(/\w+ .*\w+\./).last().waitFor();
    newcomer.inspector = page;
  },
  "mallory has no access": async (newcomer) => {
    const page = newcomer.inspector;
    const account = await page.context().newPage();
    await account.goto("http://127.0.0.1:8000/account");
    await account.getByRole("button", { name: "Sign in with Keycloak" }).click();
    await signInAtKeycloak(account, "bob");
    await account.waitForURL("http://127.0.0.1:8000/account");
    await account.getByText("Fortunes").first().waitFor();
    await account.getByRole("button", { name: "Disconnect" }).first().click();
    await account.getByRole("status").first().waitFor();
    await flip(page);
    await flip(page);
    await pressContinue(page, "approve_other");
    await signInAtKeycloak(page, "mallory");
    await page.getByRole("heading", { name: "You have no access" }).waitFor();
    newcomer.values.reference = /\b[0-9A-Z]{4}-[0-9A-Z]{4}\b/.exec(await page.locator("main").textContent())[0];
    await page.context().close();
  },
  "a to-do in Inspector": async (newcomer) => {
    const page = await openInspector(newcomer);
    await flip(page);
    await page.waitForURL("http://127.0.0.1:8000/authorize**");
    await page.getByText("You give it at most what your role allows.").waitFor();
    await pressContinue(page);
    await signInAtKeycloak(page, "bob");
    await isConnected(page);
    await callTool(page, "create-todo", "Tea");
    await page.getByText("Tea").last().waitFor();
    await page.context().close();
  },
};

export const VALUES = {
  // The subject of the only person who has signed in.
  person: async () => {
    const list = execFileSync("target/release/portcullis", ["people", "list", "--json"], { cwd: process.env.FOLDER, env: { ...process.env, KEYCLOAK_CLIENT_SECRET: "only-for-this-quickstart" } });
    return /"(keycloak:[^"]+)"/.exec(String(list))[1];
  },
};
