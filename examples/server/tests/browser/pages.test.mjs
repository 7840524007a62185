// The verification page in a real browser: what people do on it, what they see, and whether all of them can.
//
// Run by tests/server/browser.rs, which starts the servers:
//   SERVER       a server with the default configuration, links with codes, and generous limits
//   HASTY        the same, whose codes are good for two seconds, and which gives no links with codes out
//   CHROMIUM     the browser
//   SCREENSHOTS  a folder for pictures of every page, if they are to be taken

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";

const { SERVER, HASTY, CHROMIUM, SCREENSHOTS } = process.env;
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const PHONE = { width: 390, height: 844 };
const DESKTOP = { width: 1280, height: 800 };
const EMAIL = "alice@example.com";
const PASSWORD = "correct horse battery staple";
const SCOPE = "openid profile email offline_access reports:read";
const WRONG_CODE = "That code is wrong, has expired or was already used.";

let browser;

before(async () => {
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    chromiumSandbox: process.getuid?.() !== 0,
    args: [
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
});

after(() => browser?.close());

// A page of its own, which is to end without a complaint in the console.
async function open(t, options = {}) {
  const context = await browser.newContext({ viewport: PHONE, ...options });
  context.setDefaultTimeout(10_000);
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => {
    // An answer that is a refusal is one, and the console says so of each.
    const isRefusal = message.text().startsWith("Failed to load resource: the server responded with a status of 4");
    if (["error", "warning"].includes(message.type()) && !isRefusal) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  t.after(async () => {
    await context.close();
    assert.deepEqual(complaints, []);
  });
  return page;
}

// The device asks for codes.
async function codes(server = SERVER, scope = SCOPE) {
  const body = new URLSearchParams({ client_id: "client_cli", scope });
  const response = await fetch(`${server}/oauth2/device_authorization`, { method: "POST", body });
  assert.equal(response.status, 200);
  return response.json();
}

// The device polls.
async function poll({ device_code }, server = SERVER) {
  const grant_type = "urn:ietf:params:oauth:grant-type:device_code";
  const body = new URLSearchParams({ grant_type, client_id: "client_cli", device_code });
  const response = await fetch(`${server}/oauth2/token`, { method: "POST", body });
  return response.json();
}

async function signIn(page, server = SERVER, query = "") {
  await page.goto(`${server}/device${query}`);
  await page.getByLabel("E-mail address").fill(EMAIL);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await heading(page, "Connect a device");
}

async function enter(page, code) {
  await page.getByLabel("Code on your device").fill(code);
  await page.getByRole("button", { name: "Continue" }).click();
}

const heading = (page, name) => page.getByRole("heading", { level: 1, name }).waitFor();
const allow = (page) => page.getByRole("button", { name: "The codes match: allow" });
const deny = (page) => page.getByRole("button", { name: "Deny" });

async function denyInAnotherTab(page, { user_code }) {
  const tab = await page.context().newPage();
  await tab.goto(`${SERVER}/device`);
  await enter(tab, user_code);
  await deny(tab).click();
  await heading(tab, "Access denied");
  await tab.close();
}

// Until the device hears it.
async function expired(issued, server) {
  for (let i = 0; i < 100; i += 1) {
    if ((await poll(issued, server)).error === "expired_token") return;
    await new Promise((done) => setTimeout(done, 100));
  }
  assert.fail("the code does not expire");
}

test("somebody signs in, mistypes the code, types it in lower case, compares and allows", async (t) => {
  const page = await open(t);
  const issued = await codes();
  await page.goto(`${SERVER}/device`);
  await page.getByLabel("E-mail address").fill(EMAIL);
  await page.getByLabel("Password").fill("wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").getByText("The e-mail address or the password is wrong.").waitFor();
  assert.equal(await page.getByLabel("E-mail address").inputValue(), EMAIL);
  assert.equal(await page.getByLabel("Password").inputValue(), "");
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: "Sign in" }).click();
  await heading(page, "Connect a device");

  const last = issued.user_code.at(-1);
  const typo = issued.user_code.slice(0, -1) + (last === "X" ? "Z" : "X");
  await enter(page, typo);
  await page.getByRole("alert").getByText(WRONG_CODE).waitFor();
  assert.equal(await page.getByLabel("Code on your device").inputValue(), typo);
  await enter(page, issued.user_code.toLowerCase().replace("-", " "));
  await heading(page, "Allow Example CLI to use your account?");
  await page.getByText(issued.user_code, { exact: true }).waitFor();
  assert.equal(await page.getByText("network address").count(), 0);
  await page.getByText("Read your reports").waitFor();
  assert.equal((await poll(issued)).error, "authorization_pending");
  await allow(page).click();
  await heading(page, "Access allowed");
  assert.ok((await poll(issued)).access_token);
});

test("after allowing, the way back sends no form again", async (t) => {
  const page = await open(t);
  const issued = await codes();
  await signIn(page);
  await enter(page, issued.user_code);
  await allow(page).click();
  await heading(page, "Access allowed");
  await page.reload();
  await heading(page, "Access allowed");
  await page.goBack();
  await heading(page, "Access allowed");
  await page.goBack();
  await heading(page, "Connect a device");
  assert.equal(await page.getByLabel("Code on your device").inputValue(), "");
  assert.ok((await poll(issued)).access_token);
});

test("somebody denies, and allows in another tab: it stays denied", async (t) => {
  const page = await open(t);
  const issued = await codes();
  await signIn(page);
  await enter(page, issued.user_code);
  await allow(page).waitFor();
  await denyInAnotherTab(page, issued);
  await allow(page).click();
  await heading(page, "Already answered");
  await page.getByText("You denied this request before").waitFor();
  assert.equal((await poll(issued)).error, "access_denied");
});

test("a used code is a wrong one, and an expired one is told to the one who had entered it", async (t) => {
  const page = await open(t);
  await signIn(page, HASTY);
  const used = await codes(HASTY);
  await enter(page, used.user_code);
  await allow(page).click();
  await heading(page, "Access allowed");
  assert.ok((await poll(used, HASTY)).access_token);
  await page.goto(`${HASTY}/device`);
  await enter(page, used.user_code);
  await page.getByRole("alert").getByText(WRONG_CODE).waitFor();

  const late = await codes(HASTY);
  await enter(page, late.user_code);
  await allow(page).waitFor();
  await expired(late, HASTY);
  await allow(page).click();
  await heading(page, "The code can no longer be used");
  await page.getByRole("link", { name: "Enter a code" }).click();
  await enter(page, late.user_code);
  await page.getByRole("alert").getByText(WRONG_CODE).waitFor();
});

test("a link fills in the code, over the sign-in, and looks nothing up", async (t) => {
  const page = await open(t);
  const issued = await codes();
  await signIn(page, SERVER, `?user_code=${issued.user_code}`);
  assert.equal(await page.getByLabel("Code on your device").inputValue(), issued.user_code);
  // Signed in, the same link leads to the same form.
  await page.goto(`${SERVER}/device?user_code=${issued.user_code}`);
  assert.equal(await page.getByLabel("Code on your device").inputValue(), issued.user_code);
  await page.getByRole("button", { name: "Continue" }).click();
  await heading(page, "Allow Example CLI to use your account?");
});

test("a link fills in nothing where the server gives no such links out", async (t) => {
  const page = await open(t);
  const issued = await codes(HASTY);
  await signIn(page, HASTY, `?user_code=${issued.user_code}`);
  assert.equal(await page.getByLabel("Code on your device").inputValue(), "");
  await page.goto(`${HASTY}/device?user_code=${issued.user_code}`);
  assert.equal(await page.getByLabel("Code on your device").inputValue(), "");
});

test("another page can poll, and cannot read the codes that it asks for", async (t) => {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(`${HASTY}/oauth2/jwks`); // another origin, and no policy of its own
  const status = (path, form) =>
    page.evaluate(
      async ([url, form]) => {
        const asked = fetch(url, { method: "POST", body: new URLSearchParams(form) });
        return asked.then(({ status }) => status, ({ name }) => name);
      },
      [`${SERVER}${path}`, form],
    );
  assert.equal(await status("/oauth2/device_authorization", { client_id: "client_cli" }), "TypeError");
  assert.equal(await status("/oauth2/token", { client_id: "client_cli" }), 400);
});

test("a keyboard is enough, and the focus is seen", async (t) => {
  const page = await open(t, { viewport: DESKTOP });
  const issued = await codes();
  const press = (key) => page.keyboard.press(key);
  const focused = () => page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.name);
  const seen = () => page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle !== "none");
  await page.goto(`${SERVER}/device`);
  assert.equal(await focused(), "email");
  assert.ok(await seen());
  await page.keyboard.type(EMAIL);
  await press("Tab");
  assert.equal(await focused(), "password");
  await page.keyboard.type(PASSWORD);
  await press("Enter");
  await heading(page, "Connect a device");
  assert.equal(await focused(), "user_code");
  await page.keyboard.type(issued.user_code);
  await press("Enter");
  await heading(page, "Allow Example CLI to use your account?");
  // From the top: out, what may be unticked, no, yes. The first key that acts by itself does not allow.
  const order = [];
  for (let i = 0; i < 8; i += 1) {
    await press("Tab");
    order.push(await focused());
    assert.ok(await seen());
    if (order.at(-1) === "scope:email") await press("Space");
  }
  const boxes = ["scope:profile", "scope:email", "scope:offline_access", "scope:reports:read"];
  assert.deepEqual(order, ["Devices signed in", "Sign out", ...boxes, "Deny", "The codes match: allow"]);
  await press("Enter");
  await heading(page, "Access allowed");
  assert.equal((await poll(issued)).scope, "openid profile offline_access reports:read");
});

test("somebody unticks what the device need not have", async (t) => {
  const page = await open(t, { javaScriptEnabled: false });
  const issued = await codes();
  await signIn(page);
  await enter(page, issued.user_code);
  const box = (name) => page.getByRole("checkbox", { name });
  assert.ok(await box("Know who you are It does not work without this.").isDisabled());
  await box("Read your reports").uncheck();
  await page.getByText("Read your e-mail address").click(); // its label
  await allow(page).click();
  await heading(page, "Access allowed");
  assert.equal((await poll(issued)).scope, "openid profile offline_access");
});

test("who unticks everything is asked again", async (t) => {
  const page = await open(t);
  const issued = await codes(SERVER, "profile");
  await signIn(page);
  await enter(page, issued.user_code);
  await page.getByRole("checkbox", { name: "Read your name" }).uncheck();
  await allow(page).click();
  await page.getByRole("alert").getByText("Leave something ticked, or choose Deny.").waitFor();
  await allow(page).click();
  await heading(page, "Access allowed");
  assert.equal((await poll(issued)).scope, "profile");
});

// The list with no device on it.
async function noDevices(page) {
  await page.goto(`${SERVER}/device/logins`);
  const buttons = page.getByRole("button", { name: "Sign this device out" });
  while ((await buttons.count()) > 0) await buttons.first().click();
}

// Two devices, of which one was allowed and has not come yet.
async function twoDevices(page) {
  await signIn(page);
  await noDevices(page);
  const issued = [await codes(), await codes()];
  for (const one of issued) {
    await page.goto(`${SERVER}/device`);
    await enter(page, one.user_code);
    await allow(page).click();
    await heading(page, "Access allowed");
  }
  const tokens = await poll(issued[0]);
  await page.getByRole("link", { name: "Devices signed in" }).click();
  await heading(page, "Devices signed in");
  return tokens;
}

test("somebody sees which devices are signed in, and signs one out with the keyboard and without scripts", async (t) => {
  const page = await open(t, { javaScriptEnabled: false });
  const { refresh_token } = await twoDevices(page);
  await page.getByText("The device has not fetched its access yet.").waitFor();
  const button = page.getByRole("button", { name: "Sign this device out", description: "Example CLI" });
  assert.equal(await button.count(), 2);
  await button.last().focus();
  await page.keyboard.press("Enter");
  await page.getByRole("status").getByText("Example CLI was signed out.").waitFor();
  assert.equal(await button.count(), 1);
  const body = new URLSearchParams({ grant_type: "refresh_token", client_id: "client_cli", refresh_token });
  const refreshed = await fetch(`${SERVER}/oauth2/token`, { method: "POST", body });
  assert.equal((await refreshed.json()).error, "invalid_grant");
  await page.goBack();
  await heading(page, "Devices signed in");
  await noDevices(page);
  await page.getByText("No device is signed in with your account.").waitFor();
});

test("it works without scripts", async (t) => {
  const page = await open(t, { javaScriptEnabled: false });
  const issued = await codes();
  await signIn(page);
  await enter(page, issued.user_code);
  await allow(page).click();
  await heading(page, "Access allowed");
  assert.ok((await poll(issued)).access_token);
});

test("somebody signs out, and the request is free for another account", async (t) => {
  const page = await open(t);
  const issued = await codes();
  await signIn(page);
  await enter(page, issued.user_code);
  await page.getByRole("button", { name: "Sign out" }).click();
  await heading(page, "Sign in");
  await signIn(page);
  await enter(page, issued.user_code);
  await allow(page).waitFor();
});

// Each page by its name, and how to get there.
const PAGES = {
  "sign-in": (page) => page.goto(`${SERVER}/device`),
  "sign-in-error": async (page) => {
    await page.goto(`${SERVER}/device`);
    await page.getByLabel("E-mail address").fill(EMAIL);
    await page.getByLabel("Password").fill("wrong");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").waitFor();
  },
  enter: (page) => signIn(page),
  "enter-error": async (page) => {
    await signIn(page);
    await enter(page, "BCDF-GHJK");
    await page.getByRole("alert").waitFor();
  },
  review: async (page) => {
    const issued = await codes();
    await signIn(page);
    await enter(page, issued.user_code);
    await allow(page).waitFor();
  },
  "review-error": async (page) => {
    const issued = await codes(SERVER, "profile email");
    await signIn(page);
    await enter(page, issued.user_code);
    await allow(page).waitFor();
    for (const box of await page.getByRole("checkbox").all()) await box.uncheck();
    await allow(page).click();
    await page.getByRole("alert").waitFor();
  },
  devices: twoDevices,
  "devices-ended": async (page) => {
    await twoDevices(page);
    await page.getByRole("button", { name: "Sign this device out" }).first().click();
    await page.getByRole("status").waitFor();
  },
  unknown: async (page) => {
    await page.goto(`${SERVER}/nowhere`);
    await heading(page, "No such page");
  },
  allowed: async (page) => {
    await PAGES.review(page);
    await allow(page).click();
    await heading(page, "Access allowed");
  },
  denied: async (page) => {
    await PAGES.review(page);
    await deny(page).click();
    await heading(page, "Access denied");
  },
  answered: async (page) => {
    const issued = await codes();
    await signIn(page);
    await enter(page, issued.user_code);
    await allow(page).waitFor();
    await denyInAnotherTab(page, issued);
    await allow(page).click();
    await heading(page, "Already answered");
  },
  expired: async (page) => {
    const issued = await codes(HASTY);
    await signIn(page, HASTY);
    await enter(page, issued.user_code);
    await allow(page).waitFor();
    await expired(issued, HASTY);
    await allow(page).click();
    await heading(page, "The code can no longer be used");
  },
  problem: async (page) => {
    await page.goto(`${SERVER}/device`);
    await page.context().clearCookies();
    await page.getByLabel("E-mail address").fill(EMAIL);
    await page.getByLabel("Password").fill(PASSWORD);
    await page.getByRole("button", { name: "Sign in" }).click();
    await heading(page, "That did not work");
  },
};

// By the debugger, which the page's policy against scripts does not bind.
async function violations(page) {
  const session = await page.context().newCDPSession(page);
  const evaluate = async (expression) => {
    const evaluated = await session.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    assert.equal(evaluated.exceptionDetails, undefined);
    return evaluated.result.value;
  };
  await evaluate(`${axe};0`);
  const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
  const found = await evaluate(`axe.run({ runOnly: ${JSON.stringify(tags)} }).then((results) => ({
    passes: results.passes.length,
    violations: results.violations.map(({ id, nodes }) => [id, ...nodes.map(({ html }) => html)]),
  }))`);
  assert.ok(found.passes > 10, "axe has looked");
  return found.violations;
}

for (const [name, go] of Object.entries(PAGES)) {
  test(`everybody can use the page ${name}`, async (t) => {
    for (const colorScheme of ["light", "dark"]) {
      const page = await open(t, { colorScheme });
      await go(page);
      for (const [width, viewport] of Object.entries({ phone: PHONE, desktop: DESKTOP })) {
        await page.setViewportSize(viewport);
        assert.deepEqual(await violations(page), [], `${width}, ${colorScheme}`);
        const inDark = colorScheme === "dark";
        if (SCREENSHOTS && (!inDark || width === "phone")) {
          const path = `${SCREENSHOTS}/${name}-${width}${inDark ? "-dark" : ""}.png`;
          await page.screenshot({ path, fullPage: true, caret: "hide" });
        }
      }
      // On the narrowest phone nothing is cut off (WCAG 2.1, 1.4.10).
      await page.setViewportSize({ width: 320, height: 640 });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= 320, `${wide} px wide`);
    }
  });
}
