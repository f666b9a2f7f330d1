// The two pictures of the README, from the demo: docs/images/consent.png and admin.png. Run by scripts/pictures --readme.

import { mkdirSync } from "node:fs";
import { newPage, signIn, startBrowser } from "./browser.mjs";
import { authorization, register, startDemo } from "./demo.mjs";

const folder = process.argv[2];
const screen = { viewport: { width: 1040, height: 650 }, reducedMotion: "reduce", colorScheme: "light", locale: "en-US" };
mkdirSync(folder, { recursive: true });

const browser = await startBrowser();
const demo = await startDemo(process.env.PORTCULLIS, ["--populated"]);
try {
  const redirectUri = "https://claude.ai/api/mcp/auth_callback";
  const client = await register(demo, { client_name: "Claude", redirect_uris: [redirectUri] });
  const person = await newPage(screen);
  await person.goto(authorization(demo, client, redirectUri).url);
  await person.locator("button[value=approve]").waitFor({ state: "visible" });
  await person.screenshot({ path: `${folder}/consent.png` });

  const admin = await newPage(screen);
  await admin.goto(`${demo.admin}/`);
  await admin.locator("main button, form button").first().click();
  await admin.waitForURL(`${demo.idp}/**`);
  await signIn(admin, "alice");
  await admin.waitForURL(`${demo.admin}/**`);
  await admin.locator("h1").waitFor();
  await admin.screenshot({ path: `${folder}/admin.png` });
} finally {
  await browser.close();
  await demo.stop();
}
