// A program in another language that does as it is told, one JSON line for a command and one for its answer.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

export class Told {
  constructor(command, args) {
    this.child = spawn(command, args, { stdio: ["pipe", "pipe", "inherit"] });
    this.lines = createInterface({ input: this.child.stdout })[Symbol.asyncIterator]();
  }

  // `person` follows the address that the program wants opened, and returns what the browser brings back.
  async do(command, person) {
    this.child.stdin.write(`${JSON.stringify(command)}\n`);
    for (;;) {
      const { value, done } = await this.lines.next();
      if (done) throw new Error("the program ended");
      const answer = JSON.parse(value);
      if (!answer.open) return answer;
      if (!person) throw new Error("the program asks a person, and nobody expects it");
      this.child.stdin.write(`${await person(answer.open)}\n`);
    }
  }

  // The result, where nothing else will do.
  async get(command, person) {
    const { error, result } = await this.do(command, person);
    if (error) throw new Error(error);
    return result;
  }

  async stop() {
    const ended = new Promise((resolve) => this.child.on("exit", resolve));
    this.child.stdin.end();
    await ended;
  }
}
