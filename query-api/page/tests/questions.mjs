// A person's five questions, answered with clicks alone. Each answer is compared with what the Rust test has counted in
// the events that it posted. The run is recorded beside the screenshots: `npx playwright show-trace questions.zip`.

import assert from "node:assert/strict";

import { api, check, close, eventually, expected, numberOf, open, record, settled, shot, tile } from "./support.mjs";

/** From the acknowledgement of an event to the page that shows it, and to an audit that has compared it. */
const FOLLOWS_WITHIN = 40_000;
const { growth, users, funnel, retention, stored } = expected.questions;

export async function questions() {
  const page = await open("/?tz=UTC", { height: 1_000 });
  const stop = await record(page, "questions");
  await page.evaluate(() => {
    globalThis.keys = 0;
    addEventListener("keydown", () => (globalThis.keys += 1), { capture: true });
  });
  await whichCountryGrewMost(page);
  await usersOfYesterday(page);
  await whereSignUpsDropOff(page);
  await whetherTheyComeBack(page);
  await whetherItIsComplete(page);
  assert.equal(await page.evaluate(() => globalThis.keys), 0, "keys that were pressed");
  await stop();
  await close(page);
}

async function whichCountryGrewMost(page) {
  await page.getByRole("button", { name: "7d", exact: true }).click();
  const panel = page.getByRole("region", { name: "Countries", exact: true });
  await panel.getByRole("button", { name: "Change" }).click();
  const first = panel.locator("tbody tr").first();
  await eventually(
    "the country that grew most this week",
    async () => {
      assert.equal(await first.locator(".value").getAttribute("title"), growth.country);
      assert.equal(numberOf(await first.locator("td").first().innerText()), growth.events);
      assert.equal(await first.locator(".change").getAttribute("title"), `${growth.before} before`);
      return true;
    },
    FOLLOWS_WITHIN,
  );
  await shot(page, "question-1-growth");
}

async function usersOfYesterday(page) {
  await page.getByRole("button", { name: "Custom" }).click();
  await page.getByRole("button", { name: "Yesterday" }).click();
  const below = page.locator('[data-tile="users"] .before');
  await eventually("the users of yesterday and of the day before", async () => {
    assert.equal(await tile(page, "users"), users.yesterday);
    assert.equal(await below.innerText(), `from ${users.before}`);
    return true;
  });
  await shot(page, "question-2-yesterday");
}

async function whereSignUpsDropOff(page) {
  await page.getByRole("button", { name: "Funnel" }).click();
  await page.getByRole("button", { name: "7d", exact: true }).click();
  const rows = page.locator(".funnel tbody tr");
  await eventually("the users of each step", async () => {
    const counts = await rows.evaluateAll((rows) =>
      rows.map((row) => [row.querySelector("select").value, Number(row.querySelector("td").innerText)]),
    );
    assert.deepEqual(counts, funnel.steps);
    return true;
  });
  assert.equal(await page.locator(".funnel .worst select").inputValue(), funnel.worst);
  await settled(page);
  await check(page, "a funnel with losses");
  await shot(page, "question-3-funnel");
}

async function whetherTheyComeBack(page) {
  await page.getByRole("button", { name: "Retention" }).click();
  await page.getByRole("button", { name: "By week" }).click();
  const row = page.locator(".retention tbody tr").filter({ has: page.getByText(day(retention.cohort), { exact: true }) });
  const heads = page.locator(".retention thead th");
  await eventually("the users of week 2", async () => {
    const column = (await heads.allInnerTexts()).indexOf("week 2");
    assert.equal(numberOf(await row.locator("td").first().innerText()), retention.size);
    // The head of the row is no `td`.
    assert.equal(await row.locator("td").nth(column - 1).getAttribute("title"), `${retention.week2} users`);
    return true;
  });
  await settled(page);
  await check(page, "retention by week");
  await shot(page, "question-4-retention");
}

/** A day as the page writes it: `9 Nov`. */
function day(millis) {
  return new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", day: "numeric", month: "short" }).format(millis);
}

async function whetherItIsComplete(page) {
  await page.getByRole("button", { name: "Explore" }).click();
  await page.locator('[data-tile="events"] > button').click();
  await eventually("a live age", async () => (await page.locator(".age").innerText()).startsWith("Live"));
  const panel = page.locator(".chart-panel");
  await eventually("until when the chart is complete", async () => {
    const { meta } = await api("/v1/query?from=-7d&grain=hour&filter=event:eq:visit");
    const until = new Date(meta.complete_until);
    const clock = until.toISOString().slice(11, 16);
    const text = await panel.locator(".provenance").innerText();
    assert.match(text, new RegExp(`^Exact\\. Complete until ${until.getUTCDate()} \\w+, ${clock}; the dashed part`));
    return true;
  });
  // The last point of the chart is the hour that is not over; the one before is.
  const plot = await page.locator(".u-over").boundingBox();
  const y = plot.y + plot.height / 2;
  await page.mouse.move(plot.x + plot.width - 1, y, { steps: 3 });
  await page.locator(".tip").getByText("not complete yet").waitFor();
  await page.mouse.move(plot.x + plot.width / 2, y, { steps: 3 });
  await page.locator(".tip").getByText("not complete yet").waitFor({ state: "detached" });
  const figure = (id) => page.locator(`[data-figure="${id}"]`);
  await eventually(
    "that everything that was posted is stored, and a sound audit",
    async () => {
      assert.equal(numberOf(await figure("stored").locator(".number").innerText()), stored);
      assert.match(await figure("rejected").innerText(), /^Rejected\s+0\s+at the edge: 1 sample$/);
      assert.match(await figure("audit").innerText(), /^Last audit\s+OK\s+\d+ tables, \d+ s ago$/);
      assert.match(await figure("lag").innerText(), /^Lag\s+\d+ s\s+all \d+ partitions$/);
      return true;
    },
    FOLLOWS_WITHIN,
  );
  await figure("audit").scrollIntoViewIfNeeded();
  await check(page, "the strip for operators");
  await shot(page, "question-5-complete", true);
}
