// How soon the page shows numbers, and pages that stay open. For `./dev bench`, which counts what they cost the server.
//
//   node tests/cost.mjs URL LOADS PAGES
//
// Prints the milliseconds from each of LOADS navigations to the first frame with a number, as a JSON array; then opens
// PAGES pages, each in a profile of its own, prints `open`, and leaves them open until a line or the end of the input.

import { createInterface } from "node:readline";

import { launch, painted } from "./paint.mjs";

const [url, loads, pages] = process.argv.slice(2);
const browser = await launch();
try {
  const times = [];
  for (let load = 0; load < Number(loads); load += 1) {
    const context = await browser.newContext();
    times.push(await painted(await context.newPage(), url));
    await context.close();
  }
  console.log(JSON.stringify(times));
  for (let page = 0; page < Number(pages); page += 1) {
    await painted(await (await browser.newContext()).newPage(), url);
  }
  console.log("open");
  await createInterface({ input: process.stdin })[Symbol.asyncIterator]().next();
} finally {
  await browser.close();
}
process.exit(0);
