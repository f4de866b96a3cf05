// What the steps of the browser's test share: the browser, its pages, and how a step reads what they show.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { launch } from "./paint.mjs";

const [address, screenshots, expectedText] = process.argv.slice(2);
/** Address of the query API. */
export const url = address;
/** What the Rust test will have posted, counted by it. */
export const expected = JSON.parse(expectedText);
/** What went wrong inside of pages. */
export const complaints = [];

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(screenshots, { recursive: true });
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
export const browser = await launch();

export async function step(name, run) {
  const start = Date.now();
  await run();
  console.log(`ok: ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
}

/** Asks the Rust test to do something. */
export async function demand(what) {
  console.log(`do: ${what}`);
  assert.equal((await answers.next()).value, "done");
}

/** A browser profile, whose pages say what goes wrong in them. */
export async function profile({ width = 1280, height = 900, scheme = "light" } = {}) {
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: scheme,
    timezoneId: "UTC",
    locale: "en",
    permissions: ["clipboard-read", "clipboard-write"],
    acceptDownloads: true,
  });
  context.on("weberror", (error) => complaints.push(`${error.page()?.url()}: ${error.error()}`));
  context.on("console", (message) => {
    // Refused requests are shown on the page, and some are asked for here.
    const isRefusal = message.text().includes("Failed to load resource");
    if (message.type() === "error" && !isRefusal) complaints.push(`${message.page()?.url()}: ${message.text()}`);
  });
  context.on("request", (request) => {
    const at = request.url();
    if (!at.startsWith(url) && !/^(data|blob):/.test(at)) complaints.push(`asks ${at}`);
  });
  return context;
}

/** A page in a profile of its own. */
export async function open(path, { clock = false, ...screen } = {}) {
  const page = await (await profile(screen)).newPage();
  if (clock) await page.clock.install();
  await page.goto(url + path);
  return page;
}

export async function close(page) {
  await page.context().close();
}

/** Waits until something is as it should be. */
export async function eventually(what, is, within = 15_000) {
  const end = Date.now() + within;
  let last;
  for (;;) {
    try {
      last = await is();
      if (last === true) return;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) assert.fail(`${what}: ${last}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

export function numberOf(text) {
  return Number(text.replaceAll(",", ""));
}

export async function tile(page, id) {
  return numberOf(await page.locator(`[data-tile="${id}"] .number`).innerText());
}

/** The rows of a list: value and count. */
export async function list(page, name) {
  const rows = page.getByRole("region", { name, exact: true }).locator("tbody tr");
  const texts = await rows.evaluateAll((rows) =>
    rows.map((row) => [row.querySelector(".value").title, row.querySelector("td").innerText]),
  );
  return Object.fromEntries(texts.map(([value, count]) => [value, numberOf(count)]));
}

export async function api(path) {
  const response = await fetch(url + path);
  assert.equal(response.status, 200, path);
  return response.json();
}

export async function shot(page, name, fullPage = false) {
  await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage });
}

/** Records what a page shows until the returned function is called. */
export async function record(page, name) {
  const { tracing } = page.context();
  await tracing.start({ screenshots: true });
  return () => tracing.stop({ path: join(screenshots, `${name}.zip`) });
}

export async function check(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const findings = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
  assert.deepEqual(findings, [], `axe on ${what}`);
  const overflow = await page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    return Math.max(0, scrollWidth - clientWidth);
  });
  assert.equal(overflow, 0, `${what} scrolls sideways`);
}

/** Waits until no panel waits for its first answer. */
export async function settled(page) {
  await page.locator("main .panel").first().waitFor();
  await page.locator(".skeleton").first().waitFor({ state: "detached" });
}
