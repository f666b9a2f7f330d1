// The whole flow through the login pages of real identity providers, in headless Chromium.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { chromium } from "playwright-core";
import { authorization, redeem, register, startCallback } from "../browser/demo.mjs";
import { freePort } from "../browser/port.mjs";
import { dexSubject, startDex } from "./dex.mjs";
import { startKeycloak } from "./keycloak.mjs";
import { follow } from "./guide.mjs";
import { SECRET, check, serve, startMcpServer, startPortcullis } from "./serve.mjs";

const { CHROMIUM, PORTCULLIS, KEYCLOAK, DEX } = process.env;
const providers = process.env.PROVIDERS.split(" ");
// Longer than the re-check time: the next refresh has to ask the provider.
const RECHECK = 61_000;

let browser;
before(async () => {
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"],
  });
});
after(() => browser?.close());

// Registers, approves, signs in at the provider with `logIn`, redeems.
async function connect(portcullis, person, logIn) {
  const callback = await startCallback();
  const context = await browser.newContext();
  try {
    const client = await register(portcullis, { client_name: `Client of ${person}`, redirect_uris: [callback.redirectUri] });
    const { url, verifier } = authorization(portcullis, client, callback.redirectUri);
    const page = await context.newPage();
    await page.goto(url);
    await page.locator("button[value=approve]").click();
    await logIn(page, person);
    // An error page would never lead to the callback: say so soon, and what the log has to say.
    await page.waitForURL((at) => at.href.startsWith(callback.redirectUri)).catch((error) => {
      throw new Error(`${error.message}\nat ${page.url()}\n${portcullis.log()}`);
    });
    const answer = await callback.next();
    assert.ok(answer.get("code"), `${answer}\n${portcullis.log()}`);
    return { client, tokens: await redeem(portcullis, client, callback.redirectUri, answer.get("code"), verifier) };
  } finally {
    await context.close();
    callback.stop();
  }
}

async function refresh(portcullis, connection) {
  const response = await fetch(`${portcullis.url}/token`, {
    method: "POST",
    body: new URLSearchParams({
      grant_type: "refresh_token",
      client_id: connection.client,
      refresh_token: connection.tokens.refresh_token,
    }),
  });
  const body = await response.json();
  if (response.status === 200) connection.tokens = body;
  return { status: response.status, error: body.error };
}

// Refreshes, when the provider has to be asked, twice at once, as a program with two windows does. The
// provider must hear of it once: many end the session when a refresh token comes a second time.
async function refreshAndAsk(provider, person) {
  const { portcullis, [person]: connection } = provider;
  const before = await provider.asked(person);
  const answers = await Promise.all([refresh(portcullis, connection), refresh(portcullis, connection)]);
  assert.deepEqual(answers.map(({ status }) => status), [200, 200], portcullis.log());
  const questions = (await provider.asked(person)) - before;
  assert.equal(questions, 1, `${questions} questions about ${person}\n${portcullis.log()}`);
  // At most 300 would mean: on an old answer, because the provider could not be asked.
  assert.ok(connection.tokens.expires_in > 300, portcullis.log());
  assert.equal((await call(portcullis, connection)).status, 200, portcullis.log());
}

async function call(portcullis, connection) {
  const response = await fetch(portcullis.mcp, {
    method: "POST",
    headers: { authorization: `Bearer ${connection.tokens.access_token}`, "content-type": "application/json" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "ping" }),
  });
  return { status: response.status, result: (await response.json()).result };
}

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// What holds for every provider. `scopes` are those of alice and of bob.
function flow(provider, scopes) {
  test("people sign in on the provider's own page, and the rules decide", async () => {
    const { portcullis, mcp } = provider;
    const subjects = new Set();
    for (const person of ["alice", "bob"]) {
      const connection = await connect(portcullis, person, provider.logIn);
      provider[person] = connection;
      assert.equal(connection.tokens.scope, scopes[person]);
      const { status, result } = await call(portcullis, connection);
      assert.equal(status, 200);
      assert.equal(result.scopes, scopes[person]);
      assert.equal(result.email, `${person}@example.com`);
      subjects.add(result.subject);
      assert.ok(mcp.seen.every((headers) => !headers.authorization));
    }
    assert.equal(subjects.size, 2);
  });

  test("a refresh soon after does not bother the provider", async () => {
    const { portcullis, alice } = provider;
    for (let round = 0; round < 2; round++) {
      const { refresh_token } = alice.tokens;
      assert.equal((await refresh(portcullis, alice)).status, 200, portcullis.log());
      assert.notEqual(alice.tokens.refresh_token, refresh_token);
      assert.equal(alice.tokens.scope, scopes.alice);
    }
    assert.equal(await provider.asked("alice"), 0);
  });

  test("after the re-check time the provider is asked, and goes on vouching", async () => {
    await wait(RECHECK);
    for (const person of ["alice", "bob"]) await refreshAndAsk(provider, person);
  });
}

// `portcullis check` against a provider: nothing to find, and each mistake by name. `otherIssuer` is a
// pair of texts: what names the issuer in the configuration, and what names one that is not there.
function checks(provider, otherIssuer, configOf = (provider) => provider.portcullis.config) {
  test("check has nothing to find when all is right", async () => {
    const { code, findings } = await check(PORTCULLIS, configOf(provider));
    const others = findings.filter(({ severity }) => severity !== "ok");
    assert.deepEqual([code, others], [0, []]);
  });

  test("check names each mistake", async () => {
    const { url } = provider.portcullis;
    const config = configOf(provider);
    const elsewhere = config.replaceAll(url, "http://127.0.0.1:9");
    const other = config.replace(...otherIssuer(provider));
    assert.notEqual(other, config);
    for (const [what, checked, found, hint] of [
      ["secret", await check(PORTCULLIS, config, "wrong"), /client id or secret refused/, /copy both again/],
      ["redirect_uri", await check(PORTCULLIS, elsewhere), /redirect URI is not registered/, /127\.0\.0\.1:9\/auth\/callback/],
      ["discovery", await check(PORTCULLIS, other), /answers 404|calls itself/, /check the issuer|exactly as the provider does/],
    ]) {
      const finding = checked.of(what);
      assert.equal(finding?.severity, "failed", `${what}: ${JSON.stringify(checked.findings)}`);
      assert.match(finding.found, found);
      assert.match(finding.hint, hint);
      assert.equal(checked.code, 2);
    }
  });
}

function keycloak() {
  const provider = {
    async logIn(page, person) {
      await page.locator("#username").fill(person);
      await page.locator("#password").fill(person);
      await page.locator("#kc-login").click();
    },
  };
  before(async () => {
    const [port, own, online] = [await freePort(), await freePort(), await freePort()];
    provider.mcp = await startMcpServer();
    const clients = [["portcullis", `http://127.0.0.1:${own}`], ["online", `http://127.0.0.1:${online}`]];
    provider.keycloak = await startKeycloak(KEYCLOAK, port, clients);
    provider.asked = provider.keycloak.asked;
    const realm = `provider = "keycloak"\nurl = "${provider.keycloak.url}"\nrealm = "acme"\nclient_secret = { env = "PROVIDER_SECRET" }`;
    const upstream = `${realm}\nclient_id = "portcullis"`;
    const rules = `[{ roles = ["Admin"], allow = ["read", "write"] }, { roles = ["User"], allow = ["read"] }, { groups = ["/staff"], allow = ["staff"] }]`;
    provider.portcullis = await startPortcullis(PORTCULLIS, own, upstream, rules, provider.mcp.url);
    // Without offline_access: tokens that live and die with the session in the browser.
    const bound = `${realm}\nclient_id = "online"\nscopes = ["profile", "email"]`;
    provider.online = await startPortcullis(PORTCULLIS, online, bound, rules, provider.mcp.url);
  });
  after(async () => {
    await provider.portcullis?.stop();
    await provider.online?.stop();
    await provider.keycloak?.stop();
    provider.mcp?.stop();
  });

  checks(provider, () => ['realm = "acme"', 'realm = "acne"']);
  flow(provider, { alice: "read staff write", bob: "read" });

  test("a disabled person is out after the re-check time, and nobody else", async () => {
    const { portcullis, keycloak, bob } = provider;
    await keycloak.disable("bob");
    await wait(RECHECK);
    assert.deepEqual(await refresh(portcullis, bob), { status: 400, error: "invalid_grant" });
    assert.equal((await call(portcullis, bob)).status, 401);
    await refreshAndAsk(provider, "alice");
  });

  test("a sign-out there is known here within seconds", async () => {
    const { online, keycloak, logIn } = provider;
    const alice = await connect(online, "alice", logIn);
    assert.equal((await call(online, alice)).status, 200);
    await keycloak.signOut("alice");
    let status;
    for (let n = 0; n < 50 && status !== 401; n++) {
      status = (await call(online, alice)).status;
      await wait(100);
    }
    assert.equal(status, 401, online.log());
    assert.equal((await refresh(online, alice)).status, 400);
  });

  keycloakGuide(provider);
}

// docs/identity-providers/keycloak.md from an empty realm, step by step, in Keycloak's Admin Console.
function keycloakGuide(provider) {
  test("the guide, followed word by word from an empty realm, ends in a working connection", async () => {
    const { keycloak, mcp, logIn } = provider;
    const guide = readFileSync(new URL("../../docs/identity-providers/keycloak.md", import.meta.url), "utf8");
    const japanese = readFileSync(new URL("../../docs/identity-providers/keycloak.ja.md", import.meta.url), "utf8");
    const own = await freePort();
    const url = `http://127.0.0.1:${own}`;
    const folder = mkdtempSync(join(tmpdir(), "portcullis-guide-"));

    const page = await browser.newPage({ viewport: { width: 1400, height: 1600 } });
    await page.goto(keycloak.console);
    await page.locator("#username").fill(keycloak.administrator.username);
    await page.locator("#password").fill(keycloak.administrator.password);
    await page.locator("#kc-login").click();
    const named = new Set();
    const step = follow(page, { realm: "guide", portcullis: url, named });
    await step.realm();
    await step.client();
    const secret = await step.secret();
    await step.clientScopes();
    await step.roles();
    await step.group("contractors");
    await step.person("alice", "Admin", "contractors");
    await step.person("bob", "User");
    await step.groupsMapper();
    await step.logout();
    await step.realmSettings();

    // Section 3, with the addresses of this machine.
    writeFileSync(join(folder, "secret"), `${secret}\n`, { mode: 0o600 });
    const written = /```toml\n([\s\S]*?)```/;
    const meant = (text) => written.exec(text)[1].replace(/^scopes .*$/m, ""); // whose words are translated
    assert.equal(meant(guide), meant(japanese));
    const config = written.exec(guide)[1]
      .replace("https://mcp.example.com", url)
      .replace("https://sso.example.com", keycloak.url)
      .replace('"acme"', '"guide"')
      .replace("/run/secrets/keycloak", join(folder, "secret"))
      .replace("http://127.0.0.1:9000/mcp", mcp.url);
    const checked = await check(PORTCULLIS, config);
    assert.deepEqual(checked.findings.filter(({ severity }) => severity !== "ok"), []);

    const portcullis = await serve(PORTCULLIS, folder, url, `listen = "127.0.0.1:${own}"\n${config}`);
    try {
      const alice = await connect(portcullis, "alice", logIn);
      assert.equal(alice.tokens.scope, "create:todos read:todos"); // section 4
      const bob = await connect(portcullis, "bob", logIn);
      assert.equal(bob.tokens.scope, "create:todos");
      assert.equal((await call(portcullis, bob)).status, 200);
      // Section 5: ended there, out here within seconds.
      await step.revoke("bob");
      let status;
      for (let n = 0; n < 50 && status !== 401; n++) {
        status = (await call(portcullis, bob)).status;
        await wait(100);
      }
      assert.equal(status, 401, portcullis.log());
      assert.match(portcullis.log(), /upstream_logout/);
      assert.equal((await call(portcullis, alice)).status, 200);
    } finally {
      await portcullis.stop();
    }
    await page.close();
    const words = (text) => text.replaceAll(/\s+/g, " ");
    for (const name of named) {
      assert.ok(words(guide).includes(name), `keycloak.md does not name ${name}`);
      assert.ok(words(japanese).includes(name), `keycloak.ja.md does not name ${name}`);
    }
  });
}

const flavours = {
  "okta-like": {
    issuer: (origin) => `${origin}/oauth2/default`,
    upstream: "",
    rules: `[{ groups = ["Todo Admins"], allow = ["read", "write"] }, { groups = ["Everyone"], allow = ["read"] }, { groups = ["Staff"], allow = ["staff"] }]`,
  },
  "auth0-like": {
    issuer: (origin) => `${origin}/`,
    upstream: `authorize_params = { audience = "https://todo.example/mcp" }\nroles_claim = "https://acme.example/roles"`,
    rules: `[{ roles = ["Admin"], allow = ["read", "write"] }, { roles = ["User"], allow = ["read"] }, { roles = ["Staff"], allow = ["staff"] }]`,
  },
  "strict-rotation": {
    issuer: (origin) => origin,
    upstream: `authorize_params = { prompt = "consent" }`,
    rules: `[{ roles = ["Admin"], allow = ["read", "write"] }, { roles = ["User"], allow = ["read"] }, { roles = ["Staff"], allow = ["staff"] }]`,
  },
};

function oidcProvider(name, flavour) {
  const provider = {
    async logIn(page, person) {
      await page.locator("[name=login]").fill(person);
      await page.locator("[name=password]").fill(person);
      await page.getByRole("button", { name: "Sign-in" }).click();
      await page.getByRole("button", { name: "Continue" }).click();
    },
  };
  before(async () => {
    const [port, own] = [await freePort(), await freePort()];
    provider.mcp = await startMcpServer();
    const script = new URL("flavours.mjs", import.meta.url).pathname;
    provider.child = spawn("node", [script, name, String(port), `http://127.0.0.1:${own}/auth/callback`], { stdio: ["ignore", "pipe", "inherit"] });
    await new Promise((resolve, reject) => {
      provider.child.stdout.once("data", resolve);
      provider.child.once("exit", (code) => reject(new Error(`${name} ended with ${code}`)));
    });
    provider.asked = async (person) => Number(await (await fetch(`http://127.0.0.1:${port}/asked/${person}`)).text());
    const issuer = flavour.issuer(`http://127.0.0.1:${port}`);
    provider.issuer = issuer;
    const upstream = `provider = "oidc"\nissuer = "${issuer}"\nclient_id = "portcullis"\nclient_secret = { env = "PROVIDER_SECRET" }\n${flavour.upstream}`;
    provider.portcullis = await startPortcullis(PORTCULLIS, own, upstream, flavour.rules, provider.mcp.url);
  });
  after(async () => {
    await provider.portcullis?.stop();
    provider.child?.kill("SIGTERM");
    provider.mcp?.stop();
  });

  checks(provider, ({ issuer }) => [`issuer = "${issuer}"`, `issuer = "${new URL("/elsewhere", issuer)}"`]);
  flow(provider, { alice: "read write", bob: "read" });

  test("the token of the last rotation is good for the next question", async () => {
    await wait(RECHECK);
    for (const person of ["alice", "bob"]) await refreshAndAsk(provider, person);
  });
}

function onlyHs256() {
  test("check names a provider whose ID tokens prove nothing", async () => {
    const [port, own] = [await freePort(), await freePort()];
    const script = new URL("flavours.mjs", import.meta.url).pathname;
    const child = spawn("node", [script, "hs256-only", String(port), `http://127.0.0.1:${own}/auth/callback`], { stdio: ["ignore", "pipe", "inherit"] });
    await new Promise((resolve) => child.stdout.once("data", resolve));
    const { code, of } = await check(PORTCULLIS, `
public_url = "http://127.0.0.1:${own}"
[upstream]
provider = "oidc"
issuer = "http://127.0.0.1:${port}"
client_id = "portcullis"
client_secret = { env = "PROVIDER_SECRET" }
[[resource]]
path = "/mcp"
scopes = ["read"]
`);
    child.kill("SIGTERM");
    assert.equal(code, 2);
    assert.equal(of("algorithms").severity, "failed");
    assert.match(of("algorithms").found, /HS256 only/);
    assert.match(of("algorithms").hint, /RS256 or ES256/);
  });
}

function dex() {
  const provider = {
    async logIn(page, person) {
      if (person === "somebody of the directory") {
        await page.getByRole("button", { name: "Log in with Directory" }).click(); // asks for no password
      } else {
        await page.getByRole("button", { name: "Log in with Email" }).click();
        await page.locator("#login").fill(`${person}@example.com`);
        await page.locator("#password").fill("password");
        await page.locator("#submit-login").click();
      }
      await page.getByRole("button", { name: "Grant Access" }).click();
    },
  };
  before(async () => {
    const own = await freePort();
    provider.mcp = await startMcpServer();
    provider.dex = await startDex(DEX, `http://127.0.0.1:${own}/auth/callback`, SECRET);
    provider.asked = provider.dex.asked;
    const upstream = `provider = "dex"\nissuer = "${provider.dex.issuer}"\nclient_id = "portcullis"\nclient_secret = { env = "PROVIDER_SECRET" }`;
    const [alice, bob] = ["alice", "bob"].map((person) => dexSubject(person, "local"));
    const rules = `[{ subjects = ["${alice}"], allow = ["read", "write"] }, { subjects = ["${bob}"], allow = ["read"] }, { groups = ["authors"], allow = ["staff"] }]`;
    provider.portcullis = await startPortcullis(PORTCULLIS, own, upstream, rules, provider.mcp.url);
  });
  after(async () => {
    await provider.portcullis?.stop();
    await provider.dex?.stop();
    provider.mcp?.stop();
  });

  // With several connectors Dex shows their list before it looks at the request: name one.
  checks(
    provider,
    ({ dex }) => [`issuer = "${dex.issuer}"`, `issuer = "${dex.issuer}/elsewhere"`],
    ({ portcullis }) => portcullis.config.replace('client_id', 'connector_id = "local"\nclient_id'),
  );
  flow(provider, { alice: "read write", bob: "read" });

  test("groups of a directory behind it decide", async () => {
    const { portcullis, logIn } = provider;
    const somebody = await connect(portcullis, "somebody of the directory", logIn);
    assert.equal(somebody.tokens.scope, "staff");
    assert.equal((await call(portcullis, somebody)).status, 200);
  });

  test("the token of the last rotation is good for the next question", async () => {
    await wait(RECHECK);
    for (const person of ["alice", "bob"]) await refreshAndAsk(provider, person);
  });
}

// All at once: each mostly waits for the re-check time.
describe("identity providers", { concurrency: true }, () => {
  if (providers.includes("keycloak")) describe("Keycloak", { concurrency: false }, keycloak);
  if (providers.includes("dex")) describe("Dex", { concurrency: false }, dex);
  if (providers.includes("oidc")) {
    describe("oidc-provider, hs256-only", { concurrency: false }, onlyHs256);
    for (const [name, flavour] of Object.entries(flavours)) {
      describe(`oidc-provider, ${name}`, { concurrency: false }, () => oidcProvider(name, flavour));
    }
  }
});
