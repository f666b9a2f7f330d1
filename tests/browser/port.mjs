// A port on loopback for a process that is about to start.

import { randomInt } from "node:crypto";
import { createServer } from "node:net";

// Not one that the system gives to outgoing connections, which could have it before the process does.
export async function freePort() {
  for (;;) {
    const port = randomInt(20000, 32000);
    const server = createServer();
    const free = await new Promise((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!free) continue;
    await new Promise((resolve) => server.close(resolve));
    return port;
  }
}
