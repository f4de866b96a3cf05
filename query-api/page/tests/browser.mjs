// The page in a real browser, against a running query API: what it shows is what was posted, and what the API answers.
//
// A Rust test (e2e, read::page) owns the servers. This script asks it for events and outages: it prints a line that
// begins with `do: ` and waits for a line on its standard input.
//
//   node tests/browser.mjs URL SCREENSHOTS EXPECTED
//
// EXPECTED is JSON: the events, users, countries and the events of one country that `do: post` will have posted, and
// the answers to the questions about those of `do: post weeks`.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { contents, firstPaint, tabs } from "./loading.mjs";
import { questions } from "./questions.mjs";
import {
  api, browser, check, close, complaints, demand, eventually, expected, list, numberOf, open, settled, shot, step, tile, url,
} from "./support.mjs";

/** From the acknowledgement of an event to the page that shows it: 8 s of the API, 10 s of the page, and a busy machine. */
const FOLLOWS_WITHIN = 40_000;

try {
  await step("an empty server says how to send the first event", empty);
  await demand("post");
  await step("the page follows what was posted, and shows what the API answers", numbers);
  await step("the numbers are there within a second of the click on the link", firstPaint);
  await step("the page may load nothing from elsewhere, and runs nothing that is put into it", contents);
  await step("tabs share one stream, and the next one takes over", tabs);
  await step("a click filters, and a link shows the same to others", filtering);
  await step("a drag over the chart zooms, and back goes back", zooming);
  await step("the keyboard reaches everything", keyboard);
  await step("a panel is copied as curl and saved as CSV", taking);
  await step("nothing moves while the page refreshes", stillness);
  await step("no view has a finding of axe, or scrolls sideways on a phone", everywhere);
  await step("the age turns amber and red without ClickHouse, and back", outage);
  await demand("post weeks");
  await step("a person's five questions are answered by mouse alone", questions);
  assert.deepEqual(complaints, [], "errors inside of pages");
} finally {
  await browser.close();
}
process.exit(0);

async function empty() {
  const page = await open("/");
  await page.getByRole("heading", { name: "Send your first event" }).waitFor();
  const lines = await page.locator("pre span").allInnerTexts();
  assert.equal(lines.length, 2);
  assert.ok(lines.every((line) => line.startsWith(`curl ${url}/v1/events`)));
  await check(page, "the empty page");
  await shot(page, "empty");
  await close(page);
}

async function numbers() {
  const page = await open("/?range=24h&tz=UTC");
  await eventually("the posted events", async () => (await tile(page, "events")) === expected.events, FOLLOWS_WITHIN);
  await eventually("the posted users", async () => (await tile(page, "users")) === expected.users);
  await eventually("the countries", async () => {
    assert.deepEqual(await list(page, "Countries"), expected.countries);
    return true;
  });
  const { data } = await api("/v1/query?measures=events,users");
  assert.deepEqual([await tile(page, "events"), await tile(page, "users")], [data[0].events, data[0].users]);
  // The chart's table has what the API answers for each hour, the latest first.
  await page.locator("summary").click();
  const cells = await page.locator(".values tbody tr td:nth-child(2)").allInnerTexts();
  const hours = (await api("/v1/query?grain=hour")).data.map((row) => row.events).reverse();
  assert.deepEqual(cells.map(numberOf), hours);
  await page.locator("summary").click();
  await eventually("a live age", async () => (await page.locator(".age").getAttribute("data-level")) === "live");
  assert.match(await page.locator(".age").innerText(), /Live\s+\d+ s old/);
  await shot(page, "light");
  await close(page);
}

async function filtering() {
  const page = await open("/?range=24h&tz=UTC");
  const { country, events } = expected.filtered;
  const value = page.getByRole("region", { name: "Countries", exact: true }).locator(`button[title="${country}"]`);
  await value.click();
  await eventually("the filtered events", async () => (await tile(page, "events")) === events);
  await eventually("the filter in the address", () => page.url().includes(`filter=country%3Aeq%3A${country}`));
  assert.equal(await value.getAttribute("aria-pressed"), "true");
  // The link that others get has the zone, and not the key.
  await page.goto(`${page.url()}#key=secret`);
  await page.getByRole("button", { name: "Copy a link" }).click();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  assert.ok(link.includes("country") && link.includes("tz=UTC") && !link.includes("secret"), link);
  const other = await open(link.slice(url.length));
  await eventually("the same for others", async () => (await tile(other, "events")) === events);
  await other.getByRole("button", { name: /Remove the filter/ }).click();
  await eventually("all events", async () => (await tile(other, "events")) === expected.events);
  await close(other);
  await close(page);
}

async function zooming() {
  const page = await open("/?range=24h&tz=UTC");
  const box = await page.locator(".u-over").boundingBox();
  const y = box.y + box.height / 2;
  await page.mouse.move(box.x + box.width * 0.6, y);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.9, y, { steps: 5 });
  await page.mouse.up();
  await eventually("a custom window", () => new URL(page.url()).searchParams.get("from") !== null);
  const { searchParams } = new URL(page.url());
  const hours = (Date.parse(searchParams.get("to")) - Date.parse(searchParams.get("from"))) / 3_600_000;
  assert.ok(hours >= 6 && hours <= 9, `${hours} hours`);
  await page.goBack();
  await eventually("the first window", () => new URL(page.url()).searchParams.get("from") === null);
  // The next change begins with what is shown after the step back.
  await page.locator('[data-tile="users"] > button').click();
  await eventually("the measure in the first window", () => {
    const { searchParams } = new URL(page.url());
    return searchParams.get("measure") === "users" && searchParams.get("from") === null;
  });
  await close(page);
}

async function keyboard() {
  const page = await open("/?range=24h&tz=UTC");
  await eventually("the numbers", async () => (await tile(page, "events")) === expected.events);
  // Everything that can be clicked is reached by Tab, and shows that it has the focus.
  const reached = new Set();
  for (let presses = 0; presses < 200; presses += 1) {
    await page.keyboard.press("Tab");
    const [name, outline] = await page.evaluate(() => {
      const { activeElement } = document;
      // After the last element, the focus moves out of the page to the browser.
      if (activeElement === document.body) return ["", "auto"];
      const name = activeElement.getAttribute("aria-label") ?? activeElement.textContent;
      return [name.trim(), getComputedStyle(activeElement).outlineStyle];
    });
    // The second time, the focus has been everywhere.
    if (name.startsWith("Skip") && reached.size > 0) break;
    assert.notEqual(outline, "none", `${name} has no focus ring`);
    reached.add(name);
  }
  for (const part of ["Skip to the numbers", "Funnel", "7d", "+ Filter", "Countries: copy or download"]) {
    assert.ok(reached.has(part), `${part} in ${[...reached].join(", ")}`);
  }
  // Arrow keys read the chart.
  await page.locator(".plot").focus();
  await page.keyboard.press("End");
  const { data } = await api("/v1/query?grain=hour");
  await eventually("the last value", async () => numberOf(await page.locator(".tip b").innerText()) === data.at(-1).events);
  await page.keyboard.press("ArrowLeft");
  await eventually("the value before", async () => numberOf(await page.locator(".tip b").innerText()) === data.at(-2).events);
  // Keys choose range, measure and filter.
  await page.keyboard.press("3");
  await eventually("the range", () => new URL(page.url()).searchParams.get("range") === "7d");
  await page.keyboard.press("u");
  await eventually("the measure", () => new URL(page.url()).searchParams.get("measure") === "users");
  await page.keyboard.press("f");
  await eventually("the form", () => page.evaluate(() => document.activeElement.closest(".popover") !== null));
  await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  await page.keyboard.type("view");
  await page.keyboard.press("Enter");
  await eventually("a filter", () => new URL(page.url()).searchParams.get("filter") === "event:eq:view");
  await page.keyboard.press("x");
  await eventually("no filter", () => new URL(page.url()).searchParams.get("filter") === null);
  await page.keyboard.press("?");
  await page.getByRole("dialog").waitFor();
  await check(page, "the help");
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await close(page);
}

async function taking() {
  const page = await open("/?range=24h&tz=UTC");
  const panel = page.getByRole("region", { name: "Countries", exact: true });
  await panel.getByRole("button", { name: /copy or download/ }).click();
  await panel.getByRole("button", { name: "Copy as curl" }).click();
  await panel.getByText("Copied").waitFor();
  const command = await page.evaluate(() => navigator.clipboard.readText());
  const [, at] = /^curl '([^']+)'$/.exec(command) ?? assert.fail(command);
  const { data } = await api(at.slice(url.length));
  assert.deepEqual(Object.fromEntries(data.map((row) => [row.country, row.events])), expected.countries);
  await panel.getByRole("button", { name: /copy or download/ }).click();
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    panel.getByRole("button", { name: "Download CSV" }).click(),
  ]);
  assert.equal(download.suggestedFilename(), "countries.csv");
  const csv = readFileSync(await download.path(), "utf8");
  const rows = csv.trim().split("\r\n").slice(1).map((line) => line.split(","));
  assert.deepEqual(Object.fromEntries(rows.map(([country, events]) => [country, Number(events)])), expected.countries);
  await close(page);
}

async function stillness() {
  const page = await open("/?range=24h&tz=UTC");
  await eventually("the numbers", async () => (await tile(page, "events")) === expected.events);
  await page.evaluate(() => {
    globalThis.shift = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) globalThis.shift += entry.value;
    }).observe({ type: "layout-shift" });
  });
  // A refresh of the panels: within ten seconds, or thirty if nothing new was counted since the last one.
  const asked = ["grain=", "dimensions=event", "dimensions=country", "/v1/polls"];
  const answered = (part) => page.waitForResponse((response) => response.url().includes(part), { timeout: 45_000 });
  await Promise.all(asked.map(answered));
  // Less than a pixel of a line; 0.1 is called good.
  const shift = await page.evaluate(() => globalThis.shift);
  assert.ok(shift < 0.0001, `a shift of ${shift}`);
  await close(page);
}

async function everywhere() {
  const table = "/?range=24h&tz=UTC&table=1";
  const filtered = "/?range=24h&tz=UTC&filter=country%3Ain%3ADE%7CUS";
  const screens = [
    ["table", { scheme: "light" }, [table, "/?tab=funnel", "/?tab=retention", filtered]],
    ["dark", { scheme: "dark" }, ["/?range=24h&tz=UTC", "/?tab=retention"]],
    ["phone", { width: 320, height: 640 }, ["/?range=24h&tz=UTC", "/?tab=funnel", "/?tab=retention", filtered]],
    ["wall", { width: 1920, height: 1080 }, ["/?kiosk=1&theme=dark"]],
  ];
  for (const [name, screen, views] of screens) {
    const page = await open(views[0], screen);
    for (const view of views) {
      if (view !== views[0]) await page.goto(url + view);
      await settled(page);
      await check(page, `${view} on the screen ${name}`);
      if (view === views[0]) await shot(page, name, name === "phone");
    }
    await close(page);
  }
}

async function outage() {
  const page = await open("/?range=24h&tz=UTC", { clock: true });
  // Level and words are read at once: each answer that arrives may change both.
  const shows = (level, words) =>
    eventually(`the level ${level} with the words ${words}`, async () => {
      // The clock of the page stands still unless the test advances it.
      await page.clock.runFor(1_000);
      const age = page.locator(`.age[data-level="${level}"]`);
      return (await age.allInnerTexts()).some((text) => words.test(text));
    }, 60_000);
  await shows("live", /Live/);
  await eventually("every panel", async () => {
    const [waiting, drawn] = await Promise.all([page.locator(".skeleton").count(), page.locator(".u-over").count()]);
    return waiting === 0 && drawn === 1;
  });
  await demand("stop clickhouse");
  await shows("late", /Late\s+\d+ s old/);
  assert.equal(await tile(page, "events"), expected.events, "the last numbers stay");
  // The API would say each time that its answer is some seconds old, by a clock that cannot be moved.
  await page.context().setOffline(true);
  await page.clock.fastForward(120_000);
  await shows("stopped", /Not updating\s+\d+ min old/);
  assert.equal(await tile(page, "events"), expected.events, "the last numbers still stay");
  await check(page, "the stale page");
  await shot(page, "stale");
  await page.context().setOffline(false);
  await demand("start clickhouse");
  await shows("live", /Live/);
  await close(page);
}
