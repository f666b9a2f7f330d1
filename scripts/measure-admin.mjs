// Asks each list of the admin pages many times over one connection, and prints the median. Run by
// scripts/measure-admin, which says what it needs.

import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";

const TIMES = Number(process.env.TIMES ?? 41);
const PORT = Number(process.env.PORT ?? 8000);
const [folder, database] = process.argv.slice(2);
// The name that benches/seed.rs gives to the MCP server.
const PUBLIC = "http://127.0.0.1:8000";
const at = (n) => `127.0.0.1:${PORT + n}`;
const admin = `http://${at(1)}`;
const config = join(folder, "measure.toml");
writeFileSync(config, `
public_url   = "${PUBLIC}"
listen       = "${at(0)}"
database_url = ${JSON.stringify(database)}
secret_key   = "a key for measurements only, and for nothing else"

[upstream]
provider      = "oidc"
issuer        = "http://${at(2)}"
client_id     = "load"
client_secret = "load-secret-load-secret"

[admin]
listen   = "${at(1)}"
subjects = ["person-0"]

[limits]
clients              = 10000000
database_size        = 100000000000
unused_client_expiry = "365d"

[[resource]]
path   = "/mcp"
name   = "To-do list"
target = "http://${at(3)}/mcp"
scopes = ["create:todos"]
`);
const started = [
  spawn(process.env.LOAD, ["around", "--provider", at(2), "--backend", at(3), "--one-person"], { stdio: "inherit" }),
  spawn(process.env.PORTCULLIS, ["serve", "--config", config], { stdio: ["ignore", "inherit", "inherit"], env: { ...process.env, PORTCULLIS_LOG: "error" } }),
];
let ends = false;
for (const child of started)
  child.on("exit", (code) => {
    if (!ends) throw new Error(`${child.spawnfile} ended with ${code}`);
  });
process.on("exit", () => started.forEach((child) => child.kill("SIGTERM")));
for (;;) {
  const ready = await fetch(`http://${at(0)}/ready`).catch(() => undefined);
  if (ready?.status === 200) break;
  await new Promise((resolve) => setTimeout(resolve, 100));
}

const jar = new Map();
async function browse(url, form, from) {
  url = url.replace(PUBLIC, `http://${at(0)}`);
  const { host, origin } = new URL(url);
  const cookies = jar.get(host) ?? new Map();
  jar.set(host, cookies);
  const headers = { accept: "text/html", cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join("; ") };
  if (form) Object.assign(headers, { origin: from ?? origin, "sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded" });
  const answer = await fetch(url, { method: form ? "POST" : "GET", headers, body: form && new URLSearchParams(form), redirect: "manual" });
  for (const set of answer.headers.getSetCookie()) {
    const [, name, value] = /^([^=]+)=([^;]*)/.exec(set);
    cookies.set(name, value);
  }
  const text = await answer.text();
  const next = answer.headers.get("location");
  return next ? { next: new URL(next, url).href } : { text, url, status: answer.status };
}
async function follow(step) {
  while (step.next) step = await browse(step.next);
  return step;
}
const unescape = (text) => text.replace(/&#(\d+);/g, (_, code) => String.fromCodePoint(code)).replace(/&amp;/g, "&").replace(/&quot;/g, '"');
function formOf({ text, url }, fields = {}) {
  const html = /<form[^>]*method="post"[^]*?<\/form>/i.exec(text)[0];
  const action = new URL(unescape(/action="([^"]*)"/.exec(html)?.[1] ?? url), url).href;
  const hidden = [...html.matchAll(/<input[^>]*>/g)].map(([tag]) => [/name="([^"]*)"/.exec(tag)?.[1], unescape(/value="([^"]*)"/.exec(tag)?.[1] ?? "")]);
  return [action, { ...Object.fromEntries(hidden.filter(([name]) => name)), ...fields }];
}
const asked = await browse(`${admin}/`);
const signedIn = await follow(await browse(...formOf(asked)));
if (signedIn.status !== 200) throw new Error(`no sign-in: ${signedIn.status} ${signedIn.text}`);

const link = (text, pattern) => unescape(pattern.exec(text)?.[1] ?? "");
async function deep(path, pages) {
  for (let n = 0; n < pages; n++) path = link((await browse(`${admin}${path}`)).text, /rel="next" href="([^"]*)"/) || path;
  return path;
}
const grants = (await browse(`${admin}/grants`)).text;
const middle = (await browse(`${admin}/clients?q=robot%20500000`)).text;
const id = link(middle, /href="\/client\?id=([^"]*)"/);
// Every fifth grant is of the first client that the seed made.
const popular = link((await browse(`${admin}/clients?q=robot%200`)).text, /href="\/client\?id=([^"]*)"/);
const since = Number.parseInt(id.slice("client_".length, "client_".length + 12), 16) / 1000;
const day = (ago) => new Date(Date.now() - ago * 24 * 3600 * 1000).toISOString().slice(0, 10);
const pages = {
  overview: "/",
  "clients, first page": "/clients",
  "clients, tenth page": await deep("/clients", 9),
  "clients, half a million deep": `/clients?after=${encodeURIComponent(`${since} ${id}`)}`,
  "clients by name, all of them": "/clients?q=robot",
  "clients by name, one": "/clients?q=robot%20123456",
  "clients by name, tenth page": await deep("/clients?q=robot", 9),
  "clients by host": "/clients?q=host4711.example.com",
  "clients by host, second page": await deep("/clients?q=host4711.example.com", 1),
  "clients by name, last use first": "/clients?q=robot%20123456&sort=last-use",
  "clients by name, in its order": "/clients?q=robot%20123456&sort=name",
  "clients by id": `/clients?q=${id}`,
  "clients, nothing found": "/clients?q=nothing",
  "one client": `/client?id=${id}`,
  ...Object.fromEntries(["waiting", "blocked", "trusted", "refused"].flatMap((standing) => [
    [`clients ${standing}`, `/clients?standing=${standing}`],
    [`clients ${standing}, by name`, `/clients?standing=${standing}&q=robot%207`],
    [`clients ${standing}, by host`, `/clients?standing=${standing}&q=host47`],
  ])),
  "grants, first page": "/grants",
  "grants, tenth page": await deep("/grants", 9),
  "grants, deep": `/grants?after=${(BigInt(`0x${link(grants, /name="id" value="([0-9a-f]{32})"/)}`) - (3_000_000_000n << 80n)).toString(16).padStart(32, "0")}`,
  "grants, ended as well": "/grants?ended=1",
  "grants of a person": "/grants?sub=oidc%3Aseed-777",
  "grants of a person, ended as well": "/grants?sub=oidc%3Aseed-777&ended=1",
  "grants of nobody": "/grants?sub=oidc%3Anobody",
  "grants of the popular client": `/grants?client=${popular}`,
  "the popular client": `/client?id=${popular}`,
  "grants of a client": `/grants?client=${link(grants, /href="\/client\?id=([^"]*)"/)}`,
  "grants for the server": `/grants?server=${encodeURIComponent("http://127.0.0.1:8000/mcp")}`,
  "grants for a rare server": `/grants?server=${encodeURIComponent("https://reports.example.com/mcp")}`,
  "grants for an unknown server": "/grants?server=https%3A%2F%2Fnowhere.example",
  people: "/people",
  "people, tenth page": await deep("/people", 9),
  "people by a word": "/people?q=brown",
  "people by a rare word": "/people?q=ada.adams.0%40example.com",
  "one person": "/person?sub=oidc%3Aseed-777",
  "people blocked": "/people?blocked=1",
  "usage, 24 hours": "/usage",
  "usage, 7 days": "/usage?range=7d",
  "usage, 30 days": "/usage?range=30d",
  "usage, 30 days by time": "/usage?range=30d&sort=time",
  "usage of a person": "/usage?range=30d&person=oidc%3Aseed-77",
  "usage by people of a name": "/usage?range=30d&person=brown",
  "usage of nobody": "/usage?range=30d&person=nobody",
  "usage by clients of a name": "/usage?range=30d&client=robot%20123456",
  "usage by clients of no name": "/usage?range=30d&client=nothing",
  "usage of a client": "/usage?range=30d&client=client_00000000000000000000000000000007",
  "usage of a tool": "/usage?range=30d&tool=tool-3",
  "usage of a server": `/usage?range=30d&server=${encodeURIComponent("http://127.0.0.1:8000/mcp")}`,
  "usage, refused for scopes": "/usage?range=30d&outcome=scope_refused",
  "usage, refused for scopes, by person": "/usage?range=30d&outcome=scope_refused&person=brown",
  audit: "/audit",
  "audit, with routine events": "/audit?routine=1",
  "audit, tenth page": await deep("/audit?routine=1", 9),
  "audit, refusals": "/audit?show=refusals",
  "audit, by administrators": "/audit?show=admins",
  "audit of the last hour": "/audit?last=hour",
  "audit of a day": `/audit?since=${day(30)}&until=${day(30)}`,
  "audit of a day, refusals": `/audit?since=${day(30)}&until=${day(30)}&show=refusals`,
  "audit, searched by a person": "/audit?q=brown",
  "audit, searched by nothing found": "/audit?q=nothing",
  "audit of an unknown connection": "/audit?grant=nothing",
  "audit, searched by a name": "/audit?q=robot%20123456",
  "audit of a client": `/audit?client=${id}`,
  "audit of a person": "/audit?sub=oidc%3Aseed-777",
  "audit by event": "/audit?event=access_denied",
  "audit by a common event": "/audit?event=refresh_rotated",
  "audit by event, of a person": "/audit?event=access_denied&sub=oidc%3Aseed-0",
  connections: "/connections",
  refused: "/refused",
  servers: "/servers",
  keys: "/keys",
};
const rounds = Object.fromEntries(Object.keys(pages).map((name) => [name, []]));
const missing = new Set();
for (let n = 0; n < TIMES; n++)
  for (const [name, path] of Object.entries(pages)) {
    if (missing.has(name)) continue;
    const begun = performance.now();
    const { status } = await browse(`${admin}${path}`);
    rounds[name].push(performance.now() - begun);
    if (status !== 200) missing.add(name);
  }
for (const [name, took] of Object.entries(rounds)) {
  if (missing.has(name)) continue;
  took.sort((a, b) => a - b);
  const at = (share) => took[Math.floor((took.length - 1) * share)].toFixed(1).padStart(8);
  console.log(`${name.padEnd(36)} median ${at(0.5)} ms   90 % ${at(0.9)} ms`);
}
if (missing.size) console.log(`not there: ${[...missing].join(", ")}`);
ends = true;
process.exit();
