// Somebody in front of a browser without a screen: follows links, keeps cookies, fills in the forms.

const NAMED = { "&amp;": "&", "&quot;": '"', "&lt;": "<", "&gt;": ">" };
const unescaped = (text) => text
  .replace(/&#(?:x([0-9a-f]+)|(\d+));/gi, (_, hex, decimal) => String.fromCodePoint(hex ? parseInt(hex, 16) : Number(decimal)))
  .replace(/&(?:amp|quot|lt|gt);/g, (name) => NAMED[name]);

// The first form of a page.
function formOf(page) {
  const [, opening, inside] = /<form([^>]*)>([^]*?)<\/form>/.exec(page) ?? [];
  if (opening === undefined) throw new Error(`no form on the page:\n${page}`);
  const attribute = (tag, name) => unescaped(new RegExp(`\\b${name}="([^"]*)"`).exec(tag)?.[1] ?? "");
  const fields = new URLSearchParams();
  for (const [tag] of inside.matchAll(/<input[^>]*>/g)) if (attribute(tag, "name")) fields.append(attribute(tag, "name"), attribute(tag, "value"));
  return { action: attribute(opening, "action"), fields };
}

// Follows `url` until the browser is sent to `client`; what it brings there. `decision` is the button of the
// consent page: "approve" or "deny".
export async function open(url, person, client, decision = "approve") {
  const { to } = await walk(url, person, decision, (to) => to.startsWith(client));
  return new URL(to).searchParams;
}

// Follows the link of a tool, signs in, and allows everything at the service; the page at the end.
export async function connectService(url, person) {
  const { to, cookies, page } = await walk(url, person, "allow", (to) => to.includes("/auth/connect/"));
  if (!to) throw new Error(`nothing to connect:\n${page}`);
  return (await walk(to, person, "allow", () => false, cookies)).page;
}

// `hasArrived` says of an address whether the browser is there. A page with no button that leads on is an end, too.
async function walk(url, person, decision, hasArrived, cookies = new Map()) {
  let next = { url };
  for (let step = 0; step < 20; step++) {
    const { origin } = new URL(next.url);
    const response = await fetch(next.url, {
      method: next.body ? "POST" : "GET",
      body: next.body,
      headers: { cookie: [...cookies].filter(([key]) => key.startsWith(`${origin} `)).map(([key, value]) => `${key.split(" ")[1]}=${value}`).join("; "), ...(next.body && { origin: new URL(next.from).origin }) },
      redirect: "manual",
    });
    for (const cookie of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(cookie);
      cookies.set(`${origin} ${name}`, value);
    }
    const page = await response.text();
    // A page that says why there is no access has a link back to the client.
    const location = response.headers.get("location") ?? unescaped(/class="button return"[^>]*href="([^"]*)"/.exec(page)?.[1] ?? "");
    if (location) {
      const to = new URL(location, next.url).href;
      if (hasArrived(to)) return { to, cookies };
      next = { url: to };
      continue;
    }
    const { action, fields } = formOf(page);
    if (action.endsWith("/account/language")) return { page };
    if (fields.has("request")) fields.set("decision", decision);
    if (/\/connect\//.test(action)) fields.set("action", "connect");
    for (const name of ["username", "login", "password"]) if (fields.has(name)) fields.set(name, person);
    next = { url: new URL(action, next.url).href, body: fields, from: next.url };
  }
  throw new Error("the browser never came back");
}
