// Follows the README and the quickstarts word for word, as somebody would who has just cloned the repository: writes
// their files, types their commands, presses in a browser what they say, and compares what is printed. A comment before
// each block says what it is:
//
//   <!-- newcomer: run -->                 commands; each must succeed
//   <!-- newcomer: start until TEXT -->    commands in a terminal of their own, which go on; TEXT says that they are ready
//   <!-- newcomer: file NAME -->           a file
//   <!-- newcomer: prints -->              what the last commands print; … stands for anything
//   <!-- newcomer: by hand: NAME -->       steps in the text, done by hands.mjs
//   <!-- newcomer: run with VALUE for TEXT -->    commands with a value of this run instead of the printed example
//   <!-- newcomer: follow FILE 1-2 -->     the steps 1 to 2 of another document
//   <!-- newcomer: not run: REASON -->
//
// A block without such a comment is a mistake, except ```text. Environment variables that a block exports are there for
// all later blocks.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { startBrowser } from "../browser/browser.mjs";
import { HANDS, VALUES } from "./hands.mjs";

const { FOLDER, DOCUMENTS } = process.env; // a copy of the repository; the documents, in their order
const PATIENCE = 180_000; // milliseconds, for a start on a small machine

// The steps of a document: blocks with what is said of them, and what is done by hand.
export function stepsOf(document, text) {
  const steps = [];
  const lines = text.split("\n");
  let heading = "", said;
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at];
    const where = `${document}:${at + 1}`;
    const fence = /^(\s*)```(\w*)$/.exec(line);
    if (fence) {
      const [, indent, language] = fence;
      const body = [];
      for (at++; lines[at].trim() !== "```"; at++) body.push(lines[at].slice(indent.length));
      if (!said && language !== "text") throw new Error(`${where}: no <!-- newcomer: … --> before this block`);
      if (said) steps.push({ where, heading, what: said, body: body.join("\n") });
      said = undefined;
      continue;
    }
    if (/^#+ /.test(line)) heading = line.replace(/^#+ /, "");
    const comment = /<!-- newcomer: (.*) -->/.exec(line);
    if (!comment) continue;
    if (/^(by hand: |follow )/.test(comment[1])) steps.push({ where, heading, what: comment[1], body: "" });
    else said = comment[1];
  }
  if (said) throw new Error(`${document}: "${said}" is about no block`);
  return steps;
}

// Whether `output` has these lines in this order; … is anything, and spaces and line breaks are all the same.
export function prints(output, expected) {
  const plain = (text) => text.replace(/\s+/g, " ").trim();
  let rest = plain(output);
  for (const part of plain(expected).split("…").map(plain).filter((part) => part !== "")) {
    const found = rest.indexOf(part);
    if (found < 0) return false;
    rest = rest.slice(found + part.length);
  }
  return true;
}

const commandsIn = (block) => block.replace(/\\\n/g, " ").split(/\n| && /).filter((line) => line.trim() !== "").length;

class Newcomer {
  terminals = [];
  exported = "";
  values = {};
  count = { commands: 0, files: 0, hands: 0, notRun: [] };

  constructor(browser) {
    this.browser = browser;
    // Inspector remembers where it has registered itself; a newcomer has connected nothing before.
    this.home = mkdtempSync(join(dirname(FOLDER), "home-"));
  }

  // `flags`: a shell that ends at the first failure, or one that goes on, as that of a person does.
  open(block, ...flags) {
    for (const line of block.split("\n")) if (line.startsWith("export ")) this.exported += `${line}\n`;
    const child = spawn("bash", [...flags, "-c", `${this.exported}${block}`], { cwd: FOLDER, env: { ...process.env, HOME: this.home }, detached: true, stdio: ["ignore", "pipe", "pipe"] });
    const terminal = { child, output: "", code: undefined };
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => { terminal.output += data; });
    terminal.ended = new Promise((resolve) => child.on("close", (code) => { terminal.code = code; resolve(); }));
    this.terminals.push(terminal);
    this.last = terminal;
    this.count.commands += commandsIn(block);
    return terminal;
  }

  async until(what, holds) {
    const end = Date.now() + PATIENCE;
    while (!holds()) {
      assert.ok(Date.now() < end, `${what}:\n${this.last.output}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async run(block, where) {
    const terminal = this.open(block, "-e");
    await terminal.ended;
    // `check` warns where this machine reaches no website.
    const warned = terminal.code === 1 && /portcullis (check|config init)/.test(block) && /^warn/m.test(terminal.output);
    assert.ok(terminal.code === 0 || warned, `${where}: exit code ${terminal.code}\n${block}\n${terminal.output}`);
  }

  async step({ where, what, body }) {
    const [, verb, rest] = /^(run with|run|start until|file|prints|by hand:|follow|not run:)\s*(.*)$/.exec(what) ?? assert.fail(`${where}: ${what}?`);
    if (verb === "not run:") this.count.notRun.push(`${where}: ${rest}`);
    else if (verb === "file") {
      mkdirSync(dirname(join(FOLDER, rest)), { recursive: true });
      writeFileSync(join(FOLDER, rest), `${body}\n`);
      this.count.files += 1;
    } else if (verb === "run") await this.run(body, where);
    else if (verb === "run with") {
      const [, name, example] = /^(?:the )?(\w+) for (.+)$/.exec(rest);
      const value = this.values[name] ?? (await VALUES[name](this));
      assert.ok(body.includes(example), `${where}: ${example} is not in the block`);
      await this.run(body.replaceAll(example, value), where);
    } else if (verb === "start until") {
      const terminal = this.open(body);
      await this.until(`${where}: never said ${rest}`, () => terminal.output.includes(rest) || terminal.code !== undefined);
      assert.ok(terminal.output.includes(rest), `${where}: ended with ${terminal.code}\n${terminal.output}`);
    } else if (verb === "prints") {
      await this.until(`${where}: expected\n${body}\nbut it printed`, () => prints(this.last.output, body));
    } else if (verb === "by hand:") {
      assert.ok(HANDS[rest], `${where}: no hand does "${rest}"`);
      await HANDS[rest](this).catch(async (error) => {
        const pages = this.browser.contexts().flatMap((context) => context.pages());
        const seen = await Promise.all(pages.map(async (page) => `${page.url()}\n${await page.locator("body").innerText()}`));
        throw new Error(`${where}: "${rest}" failed: ${error.message}\n\nThe browser shows:\n${seen.join("\n\n")}`);
      });
      this.count.hands += 1;
    } else {
      const [, file, from, to] = /^(\S+) (\d)-(\d)$/.exec(rest);
      const there = join(dirname(where.split(":")[0]), file);
      for (const step of stepsOf(there, readFileSync(join(FOLDER, there), "utf8"))) {
        const number = Number(/^(\d)\./.exec(step.heading)?.[1]);
        if (number >= Number(from) && number <= Number(to)) await this.step(step);
      }
    }
  }

  async close() {
    for (const { child, code } of this.terminals) if (code === undefined) process.kill(-child.pid, "SIGTERM");
    const late = setTimeout(() => {
      for (const { child, code } of this.terminals) if (code === undefined) process.kill(-child.pid, "SIGKILL");
    }, 15_000);
    await Promise.all(this.terminals.map(({ ended }) => ended));
    clearTimeout(late);
  }
}

async function follow(document, browser) {
  const steps = stepsOf(document, readFileSync(join(FOLDER, document), "utf8"));
  const newcomer = new Newcomer(browser);
  const begun = Date.now();
  try {
    for (const step of steps) await newcomer.step(step);
  } finally {
    await newcomer.close();
  }
  const { commands, files, hands, notRun } = newcomer.count;
  const seconds = Math.round((Date.now() - begun) / 1000);
  console.log(`${document}: ${seconds} s, ${commands} commands, ${files} files, ${hands} visits to a browser`);
  for (const reason of notRun) console.log(`  not run: ${basename(reason)}`);
}

if (DOCUMENTS) {
  const browser = await startBrowser();
  try {
    for (const document of DOCUMENTS.split(" ")) await follow(document, browser);
  } finally {
    await browser.close();
  }
}
