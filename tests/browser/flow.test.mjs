// The people's way through Portcullis in headless Chromium: what a browser does, and not what we
// think it does.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { DESKTOP, PHONE, assertReadable, newPage, picture, signIn, startBrowser } from "./browser.mjs";
import { authorization, redeem, register, startCallback, startDemo } from "./demo.mjs";

// The languages of the pages that people see.
const LOCALES = ["en-US", "de-DE", "es-ES", "fr-FR", "ja-JP", "zh-CN"];

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

async function approve(page) {
  await page.locator("button[value=approve]").click();
}

test("a person connects a program on this computer, and it calls a tool", async () => {
  const page = await newPage();
  const { url, verifier, state } = authorization(demo, client, callback.redirectUri);
  await page.goto(url);
  await approve(page);
  await page.waitForURL(`${demo.idp}/**`);
  await signIn(page, "bob");
  const answer = await callback.next();
  assert.equal(answer.get("state"), state);
  assert.equal(answer.get("iss"), demo.url);
  const tokens = await redeem(demo, client, callback.redirectUri, answer.get("code"), verifier);
  assert.equal(tokens.scope, "create:todos");
  const call = await fetch(demo.mcp, {
    method: "POST",
    headers: {
      authorization: `Bearer ${tokens.access_token}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-protocol-version": "2026-07-28",
      "mcp-method": "tools/call",
      "mcp-name": "create-todo",
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "create-todo", arguments: { content: "Tea" } } }),
  });
  assert.equal((await call.json()).result.isError, false);
  assert.deepEqual(page.complaints, []);
});

test("a person leaves out a scope, and the token lacks it", async () => {
  const page = await newPage();
  const { url, verifier } = authorization(demo, client, callback.redirectUri);
  await page.goto(url);
  await page.getByRole("checkbox", { name: "Delete everybody's to-dos" }).uncheck();
  await picture(page, "consent-choice");
  await approve(page);
  await page.waitForURL(`${demo.idp}/**`);
  await signIn(page, "alice");
  const tokens = await redeem(demo, client, callback.redirectUri, (await callback.next()).get("code"), verifier);
  assert.equal(tokens.scope, "create:todos read:todos");
  assert.deepEqual(page.complaints, []);
  await page.context().close();
});

test("a person who leaves out everything is told, and can go back", async () => {
  const page = await newPage();
  await page.goto(authorization(demo, client, callback.redirectUri).url);
  for (const box of await page.getByRole("checkbox").all()) await box.uncheck();
  await approve(page);
  await page.getByRole("heading", { name: "Choose at least one permission" }).waitFor();
  await page.goBack();
  await page.locator("button[value=approve]").waitFor({ state: "visible" });
  await page.context().close();
});

// A client comes back for more than it has, and what is new is marked; where the rules forbid it, the tool says so.
for (const [person, isAllowed] of [["alice", true], ["bob", false]]) {
  test(`${person}'s client ${isAllowed ? "steps up" : "hears from the tool that it may not"}`, async () => {
    const page = await newPage();
    // A client of its own: what other tests have approved is not marked.
    const app = await register(demo, { client_name: `${person}'s`, redirect_uris: [callback.redirectUri] });
    const connect = async (scope) => {
      const { url, verifier } = authorization(demo, app, callback.redirectUri, { scope });
      await page.goto(url);
      const marks = await page.locator("li .tag").allTextContents();
      if (marks.length) await picture(page, `step-up-${person}`);
      await approve(page);
      await page.waitForURL((to) => to.href.startsWith(demo.idp) || to.pathname === "/callback" || to.pathname === "/auth/callback");
      if (page.url().startsWith(demo.idp)) await signIn(page, person);
      return { marks, verifier };
    };
    const first = await connect("create:todos");
    assert.deepEqual(first.marks, []);
    const tokens = await redeem(demo, app, callback.redirectUri, (await callback.next()).get("code"), first.verifier);
    const purge = (token) => fetch(demo.mcp, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json", accept: "application/json", "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "purge-todos" },
      body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "purge-todos", arguments: {} } }),
    });
    const refused = await purge(tokens.access_token);
    if (!isAllowed) {
      const { result } = await refused.json();
      assert.equal(result.isError, true);
      assert.match(result.content[0].text, /not allowed to use purge-todos.*delete:todos.*administrator/);
      assert.deepEqual(page.complaints, []);
      await page.context().close();
      return;
    }
    assert.equal(refused.status, 403);
    const scope = / scope="([^"]*)"/.exec(refused.headers.get("www-authenticate"))[1];
    assert.equal(scope, "create:todos delete:todos");

    const second = await connect(scope);
    assert.deepEqual(second.marks, ["New", "Approved before"]);
    const wider = await redeem(demo, app, callback.redirectUri, (await callback.next()).get("code"), second.verifier);
    assert.equal((await purge(wider.access_token)).status, 200);
    assert.deepEqual(page.complaints, []);
    await page.context().close();
  });
}

// Where the browser was told to go, whether or not it could.
async function navigationsOf(page) {
  const navigations = [];
  const session = await page.context().newCDPSession(page);
  await session.send("Page.enable");
  await session.send("Network.enable");
  session.on("Network.requestWillBeSent", ({ request }) => navigations.push(request.url));
  session.on("Page.frameRequestedNavigation", ({ url }) => navigations.push(url));
  session.on("Page.frameStartedNavigating", ({ url }) => navigations.push(url));
  return async (start, part) => {
    for (let n = 0; n < 200; n++) {
      if (navigations.some((url) => url.startsWith(start) && url.includes(part))) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.fail(`not led to ${start}…${part}:\n${navigations.join("\n")}`);
  };
}

// Chromium applies a policy's form-action to every redirect that follows the form.
for (const redirectUri of ["cursor://anysphere.cursor-mcp/oauth/callback", "https://client.example/cb"]) {
  test(`the content security policy lets ${redirectUri} through`, async () => {
    const app = await register(demo, { client_name: "Elsewhere", redirect_uris: [redirectUri] });
    for (const decision of ["deny", "approve"]) {
      const page = await newPage();
      const ledTo = await navigationsOf(page);
      await page.goto(authorization(demo, app, redirectUri).url);
      await page.locator(`button[value=${decision}]`).click();
      if (decision === "approve") await signIn(page, "alice");
      await ledTo(redirectUri, decision === "approve" ? "?code=" : "?error=access_denied");
      assert.deepEqual(page.complaints.filter((text) => /Content Security Policy/.test(text)), []);
      await page.context().close();
    }
  });
}

for (const reducedMotion of ["no-preference", "reduce"]) test(`approve cannot be pressed before a person can have read anything (${reducedMotion})`, async () => {
  const page = await newPage();
  await page.emulateMedia({ reducedMotion });
  await page.goto(authorization(demo, client, callback.redirectUri).url, { waitUntil: "commit" });
  for (const value of ["approve", "approve_other"]) {
    const button = page.locator(`button[value=${value}]`);
    const hidden = await button.evaluate((element) => {
      const animation = element.getAnimations()[0];
      animation.pause();
      animation.currentTime = 699;
      return getComputedStyle(element).visibility;
    });
    assert.equal(hidden, "hidden", value);
    const shown = await button.evaluate((element) => {
      element.getAnimations()[0].currentTime = 700;
      return getComputedStyle(element).visibility;
    });
    assert.equal(shown, "visible", value);
  }
});

// A page asks for a double click and opens the consent page below the pointer with the first of the two; its Enter is
// held down. Neither approves.
test("a double click and a held key that began elsewhere approve nothing", async () => {
  const page = await newPage();
  const { url } = authorization(demo, client, callback.redirectUri);
  await page.goto(url);
  const box = await page.locator("button[value=approve]").boundingBox();
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  await page.goto("about:blank");
  await page.evaluate((to) => addEventListener("mousedown", () => { location = to; }, { once: true }), url);
  await page.mouse.click(x, y);
  await page.waitForURL(`${demo.url}/authorize**`, { waitUntil: "commit" });
  await page.mouse.click(x, y, { clickCount: 2 });
  await page.keyboard.down("Enter");
  await page.keyboard.up("Enter");
  assert.equal(new URL(page.url()).pathname, "/authorize");
  await page.context().close();
});

// The boxes of scopes come before the buttons. Enter on one of them presses the first button, which is Cancel.
test("by keyboard alone, deny is the first button", async () => {
  const page = await newPage();
  await page.goto(authorization(demo, client, callback.redirectUri).url);
  const focused = () => page.evaluate(() => `${document.activeElement.localName} ${document.activeElement.value}`);
  for (const scope of ["create:todos", "delete:todos", "read:todos"]) {
    await page.keyboard.press("Tab");
    assert.match(await focused(), /^input /, scope);
  }
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "button deny");
  await page.locator("button[value=approve]").waitFor({ state: "visible" });
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.value), "approve");
  await page.keyboard.press("Enter");
  await page.waitForURL(`${demo.idp}/**`);
});

// The demo has three scopes; the page gets two more lines that are as long as the longest.
for (const viewport of [DESKTOP, PHONE])
  for (const locale of LOCALES)
    test(`the buttons are in view with five scopes (${viewport.width} wide, ${locale})`, async () => {
      const page = await newPage({ viewport, locale });
      for (const go of [places["consent-loopback"], places["consent-website"], places["consent-app"]]) {
        await go(page);
        await page.locator("button[value=approve]").waitFor({ state: "visible" });
        await page.evaluate(() => {
          const list = document.querySelector("ul.scopes");
          const lines = [...list.children].sort((one, other) => other.textContent.length - one.textContent.length);
          while (list.children.length < 5) list.append(lines[0].cloneNode(true));
        });
        for (const button of await page.locator("form[action$='/consent'] button").all()) {
          const box = await button.boundingBox();
          const bottom = box.y + box.height;
          assert.ok(bottom <= viewport.height, `${await button.textContent()} ends at ${bottom} on ${page.url()}`);
        }
      }
      await page.context().close();
    });

test("a browser that did not approve cannot finish, even with a live session there", async () => {
  const victim = await newPage();
  await victim.goto(authorization(demo, client, callback.redirectUri).url);
  await approve(victim);
  await signIn(victim, "alice");
  await callback.next();

  const attacker = await newPage();
  await attacker.goto(authorization(demo, client, callback.redirectUri).url);
  await attacker.route(`${demo.idp}/**`, (route) => route.abort());
  const toIdp = attacker.waitForRequest(`${demo.idp}/**`);
  await approve(attacker).catch(() => {});
  await victim.goto((await toIdp).url());
  await victim.getByRole("heading", { name: "not started in this browser" }).waitFor();
});

test("mallory is told, stays on the page, and goes back by the link", async () => {
  const page = await newPage();
  const { url, state } = authorization(demo, client, callback.redirectUri);
  await page.goto(url);
  await approve(page);
  await signIn(page, "mallory");
  await page.getByRole("heading", { name: "You have no access" }).waitFor();
  assert.equal(await page.locator("meta[http-equiv]").count(), 0);
  await page.getByRole("link", { name: "Return to Browser test" }).click();
  const answer = await callback.next();
  assert.equal(answer.get("error"), "access_denied");
  assert.equal(answer.get("state"), state);
  assert.deepEqual(page.complaints, []);
});

test("mallory continues as alice from the page that says that she has no access", async () => {
  const page = await newPage();
  const { url, verifier, state } = authorization(demo, client, callback.redirectUri);
  await page.goto(url);
  await approve(page);
  await signIn(page, "mallory");
  await page.getByRole("button", { name: "Continue with another account" }).click();
  await page.waitForURL(`${demo.url}/authorize?**`);
  await approve(page);
  await page.waitForURL(`${demo.idp}/**`);
  await signIn(page, "alice");
  const answer = await callback.next();
  assert.equal(answer.get("state"), state);
  const tokens = await redeem(demo, client, callback.redirectUri, answer.get("code"), verifier);
  assert.equal(tokens.scope, "create:todos delete:todos read:todos");
  assert.deepEqual(page.complaints, []);
  await page.context().close();
});

test("a person opens the MCP URL, reads how to connect, signs in, and sees what they may use", async () => {
  const page = await newPage();
  const answer = await page.goto(demo.mcp);
  assert.equal(answer.status(), 401);
  await page.getByRole("heading", { name: "This is an MCP server" }).waitFor();
  assert.match(await page.locator("code.copy").nth(1).textContent(), /^claude mcp add --transport http \S+ http/);
  assert.match(await page.getByRole("link", { name: "Add to Cursor" }).getAttribute("href"), /^cursor:/);
  assert.match(await page.getByRole("link", { name: "Add to VS Code" }).getAttribute("href"), /^vscode:/);
  await page.getByRole("link", { name: "All MCP servers here" }).click();
  await page.getByRole("heading", { name: "Connect your AI applications" }).waitFor();
  await page.getByRole("button", { name: "Sign in with" }).click();
  await page.waitForURL(`${demo.idp}/**`);
  await signIn(page, "bob");
  await page.getByText("You are signed in as").waitFor();
  assert.equal(page.url(), `${demo.url}/`);
  await page.getByRole("link", { name: "Your connected applications" }).click();
  await page.getByRole("heading", { name: "Your connected applications" }).waitFor();
  assert.deepEqual(page.complaints, []);
  await page.context().close();
});

test("a person chooses a language, and the consent page is shown in it", async () => {
  const page = await newPage();
  const { url } = authorization(demo, client, callback.redirectUri);
  await page.goto(url);
  await page.getByRole("button", { name: "Deutsch" }).click();
  await page.locator("html[lang=de]").waitFor({ state: "attached" });
  assert.equal(new URL(page.url()).pathname, "/authorize");
  await approve(page);
  await page.waitForURL(`${demo.idp}/**`);
  assert.deepEqual(page.complaints, []);
  await page.goto(`${demo.url}/account`);
  await page.getByRole("heading", { name: "Anmelden" }).waitFor();
});

// Every page as a picture: light and dark, phone and desktop, in every language; none may be wider
// than the screen, and none may break a WCAG A or AA rule that a program can check.
const places = {
  "consent-loopback": async (page) => page.goto(authorization(demo, client, callback.redirectUri).url),
  "consent-website": async (page) => {
    const redirectUri = "https://a-rather-long-name-of-a-website.connectors.example.com/api/mcp/auth_callback";
    const site = await register(demo, { client_name: "A client with a rather long name, as some have", redirect_uris: [redirectUri] });
    await page.goto(authorization(demo, site, redirectUri).url);
  },
  "consent-app": async (page) => {
    const app = await register(demo, { redirect_uris: ["vscode://vscode.github-authentication/did-authenticate"] });
    await page.goto(authorization(demo, app, "vscode://vscode.github-authentication/did-authenticate", { scope: "create:todos" }).url);
  },
  "consent-hostile": async (page) => {
    const redirectUri = "https://xn--pple-43d.example/cb";
    const site = await register(demo, { client_name: "<b>Сlaude</b> \"Official\"", redirect_uris: [redirectUri] });
    await page.goto(authorization(demo, site, redirectUri).url);
  },
  "unknown-client": async (page) => page.goto(authorization(demo, "client_unknown", callback.redirectUri).url),
  "wrong-request": async (page) => {
    const redirectUri = "https://client.example/cb";
    const site = await register(demo, { client_name: "Website", redirect_uris: [redirectUri] });
    await page.goto(authorization(demo, site, redirectUri, { code_challenge_method: "plain" }).url);
  },
  landing: async (page) => page.goto(`${demo.url}/`),
  "mcp-url": async (page) => page.goto(demo.mcp),
  "too-many-attempts": async (page) => {
    const app = await register(demo, { client_name: "Opened too often", redirect_uris: [callback.redirectUri] });
    const { url } = authorization(demo, app, callback.redirectUri);
    for (let n = 0; n < 7; n++) await page.goto(url);
    await page.getByRole("link").first().waitFor();
  },
  "not-found": async (page) => page.goto(`${demo.url}/nothing-here`),
  "from-elsewhere": async (page) => page.goto(`${demo.url}/auth/callback?state=x&code=y`),
  "no-access": async (page) => {
    await page.goto(authorization(demo, client, callback.redirectUri).url);
    await approve(page);
    await signIn(page, "mallory");
    await page.waitForURL(`${demo.url}/auth/callback**`);
  },
  login: async (page) => {
    await page.goto(authorization(demo, client, callback.redirectUri).url);
    await approve(page);
    await page.waitForURL(`${demo.idp}/**`);
  },
};

const allLooks = [DESKTOP, PHONE].flatMap((viewport) => ["light", "dark"].flatMap((colorScheme) => LOCALES.map((locale) => ({ colorScheme, viewport, locale, reducedMotion: "reduce" }))));
// The consent page in everything; the others in two languages everywhere, and in the rest once on each screen: long words
// are what breaks a narrow page.
const looksOf = (name) => allLooks.filter(({ colorScheme, viewport, locale }) => name.startsWith("consent-") || ["en-US", "ja-JP"].includes(locale) || (colorScheme === "light") === (viewport === PHONE));

for (const [name, go] of Object.entries(places)) {
  test(`the page ${name} is readable everywhere`, async () => {
    const looks = looksOf(name);
    // A few at once: a page waits longest for the browser.
    const one = async (look) => {
      const page = await newPage(look);
      await go(page);
      await page.locator("h1").waitFor();
      const button = page.locator("button[value=approve]");
      if (await button.count()) await button.waitFor({ state: "visible" });
      const device = look.viewport.width < 500 ? "phone" : "desktop";
      const called = `${name}-${device}-${look.colorScheme}-${look.locale.slice(0, 2)}`;
      await assertReadable(page, called);
      await page.context().close();
    };
    while (looks.length > 0) await Promise.all(looks.splice(0, 8).map(one));
  });
}
