// The browser, and the first frame of the page that has a number: what the tests and `./dev bench` share.

import { chromium } from "playwright-core";

/** Starts Chromium. */
export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    // In a container there is neither a sandbox for root nor a large /dev/shm.
    args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
  });
}

/**
 * Opens the page with the last 24 hours and waits for that frame; milliseconds since the start of the navigation. The
 * page then has, as `loading`, also the text of that number and how much its layout has shifted.
 */
export async function painted(page, url) {
  await page.addInitScript(record);
  await page.goto(`${url}/?range=24h&tz=UTC`);
  await page.waitForFunction(() => globalThis.loading.painted > 0);
  const { painted } = await page.evaluate(() => globalThis.loading);
  return Math.round(painted);
}

/** Runs in the page before its own script. */
function record() {
  const loading = { painted: undefined, text: "", shift: 0 };
  globalThis.loading = loading;
  const look = () => {
    const text = document.querySelector('[data-tile="events"] .number')?.textContent ?? "";
    if (loading.text !== "" || !/^\d/.test(text)) return;
    loading.text = text;
    // The second frame begins once the first one, with the number, is drawn.
    requestAnimationFrame(() => requestAnimationFrame(() => (loading.painted = performance.now())));
  };
  new MutationObserver(look).observe(document, { subtree: true, childList: true, characterData: true });
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) loading.shift += entry.value;
  }).observe({ type: "layout-shift", buffered: true });
}
