// Puts the documents together for mdbook, and checks the pages that it builds. Run by scripts/test-book.
//   node scripts/book.mjs prepare FOLDER    writes FOLDER/src: the documents, with a table of contents
//   node scripts/book.mjs check FOLDER      follows every link in FOLDER/book to a page and a heading
//
// The table of contents is docs/README.md, the index by role; a document that it does not name comes below the README of
// its folder, or at the end.

import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, join, posix, relative } from "node:path";

const [, , task, folder] = process.argv;

// A README is the index of its folder; mdbook would name its page so and leave links to it as they are.
const asIndex = (page) => page.replace(/(^|\/)README\.md$/, "$1index.md");
const withIndexes = (text) => text.replace(/(\]\((?:[^)\s#:]*\/)?)README\.md(?=[)#])/g, "$1index.md");

const headingOf = (text) => /^# (.+)$/m.exec(text)[1].replace(/`/g, "").replace(/\[([^\]]*)\]\([^)]*\)/g, "$1");

function tracked() {
  const listed = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], { maxBuffer: 1 << 26 });
  return String(listed).split("\0").filter((file) => file !== "" && existsSync(file));
}

function prepare() {
  const belongs = (file) => /^(README|README\.ja|SECURITY|CHANGELOG)\.md$/.test(file) || /^(docs|examples)\/.*\.md$/.test(file);
  const files = tracked();
  const pages = files.filter(belongs);
  const source = join(folder, "src");
  for (const page of pages) {
    const to = join(source, asIndex(page));
    mkdirSync(dirname(to), { recursive: true });
    writeFileSync(to, withIndexes(readFileSync(page, "utf8")));
  }
  // What the documents link to and is not a document: pictures and configurations.
  for (const page of pages) {
    for (const [, link] of readFileSync(page, "utf8").matchAll(/\]\(([^)\s#]+)/g)) {
      const file = posix.join(posix.dirname(page), link);
      if (/^[a-z]+:/.test(link) || belongs(file) || !existsSync(file) || file.startsWith("..")) continue;
      cpSync(file, join(source, file), { recursive: true });
    }
  }
  writeFileSync(join(source, "SUMMARY.md"), withIndexes(contents(pages)));
  writeFileSync(join(folder, "book.toml"), readFileSync("docs/book.toml", "utf8"));
}

function contents(pages) {
  const title = (page) => `${headingOf(readFileSync(page, "utf8"))}${page.endsWith(".ja.md") ? " (日本語)" : ""}`;
  const first = ["README.md", "README.ja.md", "docs/README.md"];
  const named = new Set(first);
  const lines = ["# Summary", "", ...first.map((page) => `[${title(page)}](${page})`)];
  const add = (page, depth) => {
    if (named.has(page)) return;
    named.add(page);
    lines.push(`${"  ".repeat(depth)}- [${title(page)}](${page})`);
    const below = posix.dirname(page);
    if (posix.basename(page) !== "README.md" || below === "docs") return;
    for (const other of pages.filter((other) => posix.dirname(other) === below || posix.dirname(posix.dirname(other)) === below)) add(other, depth + 1);
  };
  for (const line of readFileSync("docs/README.md", "utf8").split("\n")) {
    const part = /^## (.+)$/.exec(line);
    if (part) lines.push("", `# ${part[1]}`, "");
    const linked = [...line.matchAll(/\]\(([^)\s#:]+\.md)[^)]*\)/g)].map(([, link]) => posix.join("docs", link));
    for (const page of linked) if (pages.includes(page)) add(page, 0);
  }
  const rest = pages.filter((page) => !named.has(page));
  if (rest.length > 0) lines.push("", "# More", "");
  for (const page of rest) add(page, 0);
  return `${lines.join("\n")}\n`;
}

function filesBelow(top) {
  return readdirSync(top).flatMap((name) => {
    const path = join(top, name);
    return statSync(path).isDirectory() ? filesBelow(path) : [path];
  });
}

function check() {
  const top = join(folder, "book");
  const pages = filesBelow(top).filter((file) => file.endsWith(".html"));
  const ids = new Map(pages.map((page) => [page, new Set([...readFileSync(page, "utf8").matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id))]));
  const dead = [];
  let followed = 0;
  for (const page of pages) {
    if (page.endsWith("print.html")) continue; // all pages once more
    for (const [, link] of readFileSync(page, "utf8").matchAll(/\s(?:href|src)="([^"]*)"/g)) {
      if (/^(?:[a-z]+:|\/\/|data:)/.test(link) || link === "") continue;
      const [path, anchor] = link.split("#");
      let target = path === "" ? page : join(dirname(page), decodeURIComponent(path.split("?")[0]));
      if (existsSync(target) && statSync(target).isDirectory() && existsSync(join(target, "index.html"))) target = join(target, "index.html");
      followed += 1;
      const leads = existsSync(target) && !target.endsWith(".md") && (!anchor || !ids.has(target) || ids.get(target).has(decodeURIComponent(anchor)));
      if (!leads) dead.push(`${relative(top, page)}: ${link}`);
    }
  }
  for (const link of dead) console.error(`dead: ${link}`);
  const search = filesBelow(top).some((file) => /searchindex[^/]*\.js$/.test(file));
  if (!search) console.error("the book has no search");
  console.log(`${pages.length} pages, ${followed} links, ${dead.length} dead`);
  if (dead.length > 0 || !search || pages.length < 50) process.exit(1);
}

if (task === "prepare") prepare();
else if (task === "check") check();
else throw new Error(`${task}? prepare or check`);
