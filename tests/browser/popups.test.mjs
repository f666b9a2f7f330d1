// Pages that sign in in a popup: `use-mcp` and `oidc-client-ts`, against `portcullis demo`. The popup finds its
// opener again only when no page on the way sends `Cross-Origin-Opener-Policy`.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { newPage, signIn, startBrowser } from "./browser.mjs";
import { register, startDemo } from "./demo.mjs";

const folder = join(dirname(fileURLToPath(import.meta.url)), "popups");

// A website that is one page with one program.
async function startSite(program) {
  const { outputFiles: [{ text }] } = await build({
    entryPoints: [join(folder, `${program}.js`)], bundle: true, write: false, format: "esm", minify: true,
    define: { "process.env.NODE_ENV": '"production"' }, logLevel: "error",
  });
  const server = createServer((request, response) => {
    const isProgram = request.url === "/program.js";
    response.writeHead(200, { "content-type": isProgram ? "text/javascript" : "text/html" });
    response.end(isProgram ? text : '<!doctype html><title>A website</title><div id="root"></div><script type="module" src="/program.js"></script>');
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, stop: () => { server.closeAllConnections(); server.close(); } };
}

let browser, demo;
before(async () => {
  demo = await startDemo(process.env.PORTCULLIS);
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await demo?.stop();
});

// What a person does in the popup; it closes by itself when its program lets it.
async function inPopup(popup, person) {
  const closed = popup.waitForEvent("close");
  if (person === "deny") {
    await popup.locator("button[value=deny]").click();
    return { popup, closed };
  }
  await popup.locator("button[value=approve]").click();
  await popup.waitForURL(`${demo.idp}/**`);
  await signIn(popup, person);
  // Our page says why, and has a link back.
  if (person === "mallory") await popup.locator("a[href*=access_denied]").click();
  return { popup, closed };
}

const shows = (page, id, text) => page.locator(`output#${id}`, { hasText: text }).waitFor();

for (const n of [1, 2, 3]) {
  test(`use-mcp signs in in a popup, calls a tool, and is refreshed (${n})`, async () => {
    const site = await startSite("use-mcp");
    const page = await newPage();
    try {
      const opened = page.waitForEvent("popup");
      await page.goto(`${site.url}/?url=${demo.mcp}`);
      await (await inPopup(await opened, "bob")).closed;
      await shows(page, "state", "ready");
      await page.getByRole("button", { name: "Create" }).click();
      await shows(page, "answer", "Bob Brown");
      await page.getByRole("button", { name: "Purge" }).click();
      await shows(page, "answer", "not allowed to use purge-todos");
      if (n === 1) console.log(`use-mcp shows: ${await page.locator("#answer").textContent()}`);

      // The token is not good any more: it comes back with another one, and without a popup.
      const tokens = await page.evaluate(() => {
        const key = Object.keys(localStorage).find((name) => name.endsWith("tokens"));
        const tokens = JSON.parse(localStorage.getItem(key));
        localStorage.setItem(key, JSON.stringify({ ...tokens, access_token: "no-longer-good" }));
        return tokens;
      });
      await page.reload();
      await shows(page, "state", "ready");
      const now = await page.evaluate(() => JSON.parse(localStorage.getItem(Object.keys(localStorage).find((name) => name.endsWith("tokens")))));
      assert.notEqual(now.refresh_token, tokens.refresh_token);
      assert.equal(page.context().pages().length, 1);
    } finally {
      await page.context().close();
      site.stop();
    }
  });
}

for (const person of ["deny", "mallory"]) {
  test(`use-mcp learns that a person got no access (${person})`, async () => {
    const site = await startSite("use-mcp");
    const page = await newPage();
    try {
      const opened = page.waitForEvent("popup");
      await page.goto(`${site.url}/?url=${demo.mcp}`);
      const { popup } = await inPopup(await opened, person);
      await popup.getByText("access_denied").first().waitFor();
      console.log(`use-mcp's popup shows (${person}): ${(await popup.locator("body").innerText()).split("\n").find((line) => line.includes("access_denied"))}`);
      await shows(page, "state", /failed|authenticating/);
      console.log(`use-mcp shows (${person}): ${await page.locator("#state").textContent()} ${await page.locator("#error").textContent()}`);
    } finally {
      await page.context().close();
      site.stop();
    }
  });
}

for (const person of ["deny", "mallory", "bob"]) {
  test(`oidc-client-ts signs in in a popup (${person})`, async () => {
    const site = await startSite("oidc-client-ts");
    const page = await newPage();
    try {
      const client = await register(demo, { client_name: "A page with oidc-client-ts", redirect_uris: [`${site.url}/callback`], grant_types: ["authorization_code", "refresh_token"] });
      await page.goto(`${site.url}/?${new URLSearchParams({ authority: demo.url, client, resource: demo.mcp })}`);
      const press = (name) => page.getByRole("button", { name, exact: true }).click();
      const opened = page.waitForEvent("popup");
      await press("Sign in");
      const { closed } = await inPopup(await opened, person);
      await closed;
      await shows(page, "answer", person === "bob" ? "signed in: create:todos" : "failed:");
      console.log(`oidc-client-ts shows (${person}): ${await page.locator("#answer").textContent()}`);
      if (person !== "bob") return;
      await press("Create");
      await shows(page, "answer", "Bob Brown");
      await press("Refresh");
      await shows(page, "answer", "another token");
      await press("Purge");
      await shows(page, "answer", "not allowed to use purge-todos");
    } finally {
      await page.context().close();
      site.stop();
    }
  });
}
