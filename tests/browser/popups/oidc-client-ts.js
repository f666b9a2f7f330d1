// A page that signs in with `oidc-client-ts` in a popup, and calls a tool with the token.

import { UserManager } from "oidc-client-ts";

const parameters = new URLSearchParams(location.search);
const kept = JSON.parse(sessionStorage.getItem("settings") ?? "{}");
const settings = parameters.has("client") ? { authority: parameters.get("authority"), client_id: parameters.get("client"), resource: parameters.get("resource") } : kept;
sessionStorage.setItem("settings", JSON.stringify(settings));

const manager = new UserManager({
  ...settings,
  redirect_uri: `${location.origin}/callback`,
  popup_redirect_uri: `${location.origin}/callback`,
  scope: "create:todos",
  automaticSilentRenew: false,
});
const output = document.createElement("output");
output.id = "answer";
const show = (what) => { output.textContent = what; };
const call = (name, args) => async () => {
  const { access_token } = await manager.getUser();
  const response = await fetch(settings.resource, {
    method: "POST",
    headers: {
      authorization: `Bearer ${access_token}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      "mcp-protocol-version": "2026-07-28",
      "mcp-method": "tools/call",
      "mcp-name": name,
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } }),
  });
  show(await response.text());
};

const actions = {
  "Sign in": async () => show(`signed in: ${(await manager.signinPopup()).scope}`),
  Create: call("create-todo", { content: "Tea" }),
  Purge: call("purge-todos", {}),
  Refresh: async () => {
    const before = (await manager.getUser()).access_token;
    const after = (await manager.signinSilent()).access_token;
    show(before === after ? "the same token" : "another token");
  },
};

if (location.pathname === "/callback") manager.signinPopupCallback();
else {
  document.body.append(output);
  for (const [name, action] of Object.entries(actions)) {
    const button = document.createElement("button");
    button.textContent = name;
    button.onclick = () => {
      show("");
      action().catch((error) => show(`failed: ${error.message}`));
    };
    document.body.append(button);
  }
}
