// Reads the views with ClickHouse's client for Node and prints what it found, for `test_clients.py`.
import { createRequire } from "node:module";

const { createClient } = createRequire(`${process.env.BI_NODE_MODULES}/`)("@clickhouse/client");
const { BI_URL, BI_USER, BI_PASSWORD, BI_DATABASE, MANY, TOO_MANY, WRAPPED } = process.env;
const client = createClient({ url: BI_URL, username: BI_USER, password: BI_PASSWORD, database: BI_DATABASE });

const rows = async (query) => (await client.query({ query, format: "JSONEachRow" })).json();

const views = (await rows("SHOW TABLES")).map((row) => row.name);
const columns = (await rows("DESCRIBE TABLE event_daily")).map(({ name, type, comment }) => ({ name, type, comment }));
const [first] = await rows("SELECT day, events FROM event_daily LIMIT 1");
const counts = await Promise.all(views.slice(0, 8).map((view) => rows(`SELECT count() AS n FROM \`${view}\``)));
const others = [];
for (const view of views.slice(8)) others.push(await rows(`SELECT count() AS n FROM \`${view}\``));
const parallel = [...counts, ...others].filter(([row]) => Number(row.n) > 0).length;
const wrapped = (await rows(WRAPPED)).length;

let streamed = 0;
const stream = await client.query({ query: MANY, format: "JSONCompactEachRow" });
for await (const block of stream.stream()) streamed += block.length;

let refused = "";
try {
  await rows(TOO_MANY);
} catch (error) {
  refused = `${error.code}: ${error.message}`;
}
await client.close();
console.log(
  JSON.stringify({ views, columns, day: first.day, events: Number(first.events), parallel, wrapped, streamed, refused }),
);
