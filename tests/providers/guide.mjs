// The steps of docs/identity-providers/keycloak.md, in the order and the words of the guide, in Keycloak's own
// Admin Console. What the guide calls a menu, a tab or a switch is looked for under that name.

// Every name that is looked for must stand in the guide: `named` remembers them.
export function follow(page, { realm, portcullis, named }) {
  const name = (text) => {
    named.add(text);
    return text;
  };
  const menu = (text) => page.getByRole("link", { name: name(text), exact: true }).first().click();
  const button = (text) => page.getByRole("button", { name: name(text), exact: true }).first().click();
  const plain = (text) => page.getByRole("button", { name: text, exact: true }).first().click(); // Next, Save: of any page
  const tab = (text) => page.getByRole("tab", { name: name(text), exact: true }).click();
  // Labels of required fields end with a star.
  const field = (text, within = page) => within.getByLabel(new RegExp(`^\\s*${name(text)}\\s*\\*?\\s*$`)).and(within.locator("input")).first();
  const told = (text) => page.getByText(text).first().waitFor(); // what Keycloak says when it has saved
  async function set(text, on) {
    const box = field(text);
    if ((await box.isChecked()) !== on) await box.click({ force: true });
  }
  async function openClient() {
    await menu("Clients");
    await page.getByRole("link", { name: "portcullis", exact: true }).click();
  }

  return {
    async realm() {
      // A person waits until a message is gone that lies over a button.
      await page.addStyleTag({ content: ".pf-v5-c-alert-group { pointer-events: none }" });
      await menu("Manage realms");
      await button("Create realm");
      await field("Realm name").fill(realm);
      await plain("Create");
      await page.getByText(realm, { exact: true }).first().waitFor();
    },

    async client() {
      await menu("Clients");
      await page.getByRole("link", { name: name("Create client"), exact: true }).click();
      await field("Client ID").fill("portcullis");
      await plain("Next");
      await set("Client authentication", true);
      await set("Authorization", false);
      await set("Standard flow", true);
      await set("Require PKCE", true);
      await page.getByText(name("PKCE Method"), { exact: false }).first().waitFor();
      await page.getByText("S256", { exact: true }).first().waitFor();
      await plain("Next");
      await field("Valid redirect URIs").fill(`${portcullis}/auth/callback`);
      await plain("Save");
      await told(/Client created/);
    },

    async secret() {
      await tab("Credentials");
      const input = field("Client Secret");
      await input.waitFor();
      return input.inputValue();
    },

    async clientScopes() {
      await tab("Client scopes");
      for (const [scope, kind] of [["offline_access", "Optional"], ["roles", "Default"]]) {
        named.add(scope).add(kind);
        // The list has two pages; its search field finds what is on either.
        await page.getByRole("main").getByLabel("Search", { exact: true }).first().fill(scope);
        await page.keyboard.press("Enter");
        await page.getByRole("row").filter({ hasText: new RegExp(`${scope}\\s*${kind}`) }).first().waitFor();
      }
    },

    async roles() {
      for (const role of ["User", "Admin"]) {
        await menu("Realm roles");
        await page.getByRole("link", { name: name("Create role"), exact: true }).or(page.getByRole("button", { name: "Create role", exact: true })).first().click();
        await field("Role name").fill(role);
        await plain("Save");
        await page.getByRole("tab", { name: "Users in role" }).waitFor();
      }
    },

    async group(group) {
      await menu("Groups");
      await button("Create group");
      await page.getByRole("dialog").locator("#name").fill(group);
      await page.getByRole("dialog").getByRole("button", { name: "Create", exact: true }).click();
      await page.getByRole("link", { name: group, exact: true }).waitFor();
    },

    async person(username, role, group) {
      await menu("Users");
      await page.getByRole("button", { name: name("Add user"), exact: true }).or(page.getByRole("button", { name: "Create new user", exact: true })).first().click();
      await field("Username").fill(username);
      await field("Email").fill(`${username}@example.com`);
      await field("First name").fill(username);
      await field("Last name").fill("Test");
      await plain("Create");
      await page.getByRole("tab", { name: "Role mapping" }).waitFor();
      await tab("Credentials");
      await button("Set password");
      const dialog = page.getByRole("dialog");
      await dialog.locator("#password").fill(username);
      await dialog.locator("#passwordConfirmation").fill(username);
      const temporary = dialog.getByLabel(name("Temporary"), { exact: true });
      if (await temporary.isChecked()) await temporary.click({ force: true });
      await dialog.getByRole("button", { name: "Save", exact: true }).click();
      await page.getByRole("button", { name: "Save password", exact: true }).click();
      await dialog.waitFor({ state: "detached" });
      await tab("Role mapping");
      await button("Assign role");
      await page.getByRole("menuitem", { name: name("Realm roles"), exact: true }).click();
      await page.getByRole("dialog").getByRole("row", { name: role }).getByRole("checkbox").check();
      await page.getByRole("dialog").getByRole("button", { name: "Assign", exact: true }).click();
      await page.getByRole("row").filter({ hasText: role }).first().waitFor();
      if (!group) return;
      await tab("Groups");
      await button("Join Group");
      await page.getByRole("dialog").getByRole("listitem").filter({ hasText: group }).getByRole("checkbox").check();
      await page.getByRole("dialog").getByRole("button", { name: "Join", exact: true }).click();
      await page.getByRole("row").filter({ hasText: group }).first().waitFor();
    },

    async groupsMapper() {
      await openClient();
      await tab("Client scopes");
      await page.getByRole("link", { name: name("portcullis-dedicated"), exact: true }).click();
      await button("Configure a new mapper");
      await page.getByText(name("Group Membership"), { exact: true }).first().click();
      await page.locator("#name").fill("groups");
      await field("Token Claim Name").fill("groups");
      await set("Full group path", true);
      await set("Add to ID token", true);
      await plain("Save");
      await told(/Mapping successfully created/);
    },

    async logout() {
      await openClient();
      await tab("Settings");
      await page.getByText(name("Logout settings"), { exact: true }).first().click();
      await set("Front channel logout", false);
      await field("Backchannel logout URL").fill(`${portcullis}/backchannel-logout`);
      await set("Backchannel logout session required", true);
      await set("Backchannel logout revoke offline sessions", true);
      await page.getByRole("button", { name: "Save", exact: true }).last().click();
      await told(/Client successfully updated/);
    },

    // Section 5: ends a person's session at Keycloak.
    async revoke(username) {
      await menu("Sessions");
      const row = page.getByRole("row").filter({ hasText: username }).filter({ hasText: name("OFFLINE") });
      await row.getByRole("button").last().click();
      await page.getByRole("menuitem", { name: name("Revoke"), exact: true }).click();
      await row.waitFor({ state: "detached" });
    },

    async realmSettings() {
      await menu("Realm settings");
      await page.getByRole("tab", { name: "Tokens", exact: true }).waitFor(); // a client has a tab Sessions, too
      await tab("Sessions");
      await page.getByText(name("Offline Session Idle"), { exact: true }).first().waitFor();
      await tab("Tokens");
      await set("Revoke Refresh Token", true);
      const reuse = page.locator(".pf-v5-c-form__group").filter({ hasText: name("Refresh Token Max Reuse") });
      await reuse.getByRole("spinbutton").fill("1");
      await page.getByRole("button", { name: "Save", exact: true }).last().click();
      await told(/Realm successfully updated/);
    },
  };
}
