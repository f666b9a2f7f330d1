// Headless Chromium and what every test does with a page of it.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { chromium } from "playwright-core";

const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"];

const screenshots = process.env.SCREENSHOTS;
if (screenshots) mkdirSync(screenshots, { recursive: true });

let browser;

export async function startBrowser() {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"],
  });
  return browser;
}

// A page that collects everything the browser complains about, in a context of its own.
export async function newPage(options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.complaints = [];
  page.on("console", (message) => {
    if (message.type() === "error" && !/favicon|status of 4\d\d/.test(message.text())) page.complaints.push(message.text());
  });
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("dialog", (dialog) => page.complaints.push(`dialog: ${dialog.message()}`));
  return page;
}

// At the demo's identity provider; the password is the name.
export async function signIn(page, person) {
  await page.getByLabel("Name").fill(person);
  await page.getByLabel("Password").fill(person);
  await page.getByRole("button", { name: "Sign in" }).click();
}

// A picture of the page, where somebody wants one.
export async function picture(page, called) {
  if (screenshots) await page.screenshot({ path: join(screenshots, `${called}.png`), fullPage: true });
}

// The screens on which every page is looked at.
export const DESKTOP = { width: 1280, height: 720 };
export const PHONE = { width: 390, height: 844 };
// The narrowest phone on which nothing may be cut.
const NARROW = 360;

async function assertFits(page, called) {
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(overflow <= 0, `${called} is ${overflow}px too wide at ${page.viewportSize().width}`);
}

// Readable: no wider than the screen, no violation that a program can find except the expected, no complaint.
export async function assertReadable(page, called, expected = []) {
  await picture(page, called);
  await assertFits(page, called);
  const screen = page.viewportSize();
  if (screen.width === PHONE.width) {
    await page.setViewportSize({ ...screen, width: NARROW });
    await assertFits(page, called);
    await page.setViewportSize(screen);
  }
  await page.evaluate(axeSource);
  const { violations } = await page.evaluate((runOnly) => globalThis.axe.run({ runOnly }), RULES);
  const found = violations.filter((violation) => !expected.includes(violation.id));
  assert.deepEqual(found.map((violation) => `${violation.id}: ${violation.nodes.map((node) => node.html).join(" ")}`), [], called);
  assert.deepEqual(page.complaints, [], called);
}
