// A real Keycloak with a realm of ours: two people, two roles, a group, strict refresh rotation.

import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SECRET } from "./serve.mjs";

const ADMIN = { username: "admin", password: "only-for-this-test" };

const client = (clientId, portcullis) => ({
  clientId,
  secret: SECRET,
  publicClient: false,
  standardFlowEnabled: true,
  implicitFlowEnabled: false,
  directAccessGrantsEnabled: false,
  redirectUris: [`${portcullis}/auth/callback`],
  attributes: {
    "pkce.code.challenge.method": "S256",
    "backchannel.logout.url": `${portcullis}/backchannel-logout`,
    "backchannel.logout.session.required": "true",
  },
  protocolMappers: [{
    name: "groups",
    protocol: "openid-connect",
    protocolMapper: "oidc-group-membership-mapper",
    config: { "claim.name": "groups", "full.path": "true", "id.token.claim": "true" },
  }],
});

// `clients` are pairs of client id and the Portcullis it belongs to.
const realm = (clients) => ({
  realm: "acme",
  enabled: true,
  sslRequired: "none",
  revokeRefreshToken: true,
  refreshTokenMaxReuse: 0,
  eventsEnabled: true,
  enabledEventTypes: ["REFRESH_TOKEN"],
  roles: { realm: [{ name: "Admin" }, { name: "User" }] },
  groups: [{ name: "staff" }],
  users: ["alice", "bob"].map((username) => ({
    username,
    enabled: true,
    email: `${username}@example.com`,
    emailVerified: true,
    firstName: username,
    lastName: "Test",
    credentials: [{ type: "password", value: username }],
    realmRoles: [username === "alice" ? "Admin" : "User", "default-roles-acme", "offline_access"],
    groups: username === "alice" ? ["/staff"] : [],
  })),
  clients: clients.map(([id, portcullis]) => client(id, portcullis)),
});

export async function startKeycloak(home, port, clients) {
  mkdirSync(join(home, "data/import"), { recursive: true });
  writeFileSync(join(home, "data/import/acme.json"), JSON.stringify(realm(clients)));
  const child = spawn(
    join(home, "bin/kc.sh"),
    ["start-dev", "--import-realm", "--db=dev-mem", "--http-host=127.0.0.1", `--http-port=${port}`],
    {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, KC_BOOTSTRAP_ADMIN_USERNAME: ADMIN.username, KC_BOOTSTRAP_ADMIN_PASSWORD: ADMIN.password },
    },
  );
  const said = [];
  await new Promise((resolve, reject) => {
    child.stdout.on("data", (data) => {
      said.push(data);
      if (String(data).includes("Listening on:")) resolve();
    });
    child.on("exit", (code) => reject(new Error(`Keycloak ended with ${code}: ${said.join("")}`)));
  });
  const url = `http://127.0.0.1:${port}`;

  async function admin(method, path, body) {
    const login = await fetch(`${url}/realms/master/protocol/openid-connect/token`, {
      method: "POST",
      body: new URLSearchParams({ grant_type: "password", client_id: "admin-cli", ...ADMIN }),
    });
    const { access_token } = await login.json();
    const response = await fetch(`${url}/admin/realms/acme${path}`, {
      method,
      headers: { authorization: `Bearer ${access_token}`, "content-type": "application/json" },
      body: body && JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response.headers.get("content-type")?.includes("json") ? response.json() : undefined;
  }

  const idOf = async (username) => (await admin("GET", `/users?exact=true&username=${username}`))[0].id;
  return {
    url,
    // How often a refresh token of this person was accepted.
    asked: async (username) => (await admin("GET", `/events?type=REFRESH_TOKEN&user=${await idOf(username)}`)).length,
    disable: async (username) => admin("PUT", `/users/${await idOf(username)}`, { enabled: false }),
    signOut: async (username) => admin("POST", `/users/${await idOf(username)}/logout`),
    console: `${url}/admin/master/console/`,
    administrator: ADMIN,
    stop: async () => {
      child.removeAllListeners("exit");
      const ended = new Promise((resolve) => child.on("exit", resolve));
      child.kill("SIGTERM");
      await ended;
    },
  };
}
