// What the reader looks at. All of it is in the address, so that a link shows somebody else the same; only
// the key and the colours are not.

export type Tab = "explore" | "funnel" | "retention";
export type Grain = "minute" | "15m" | "hour" | "day" | "week" | "month";
export type Compare = "none" | "previous" | "week" | "year";
export type Op = "eq" | "ne" | "in" | "nin" | "prefix" | "contains";

export interface Filter {
  field: string;
  op: Op;
  /** One value, or several with `in` and `nin`. */
  values: string[];
}

export interface State {
  tab: Tab;
  /** A preset, or `custom` with `from` and `to`. */
  range: string;
  from: string;
  to: string;
  /** Empty: the grain that suits the range. */
  grain: "" | Grain;
  tz: string;
  compare: Compare;
  filters: Filter[];
  /** `events`, `users` or `event:<name>`. */
  measure: string;
  /** The events of the two last tiles; empty: the page chooses. */
  tiles: [string, string];
  /** Whether the chart's table is open. */
  table: boolean;
  kiosk: boolean;
  /** Events of the funnel in their order; empty: the page chooses. */
  steps: string[];
  within: string;
  /** Events of the retention; empty: the page chooses. */
  first: string;
  again: string;
  cohort: "day" | "week";
}

export interface Preset {
  name: string;
  from: string;
  to: string;
  label: string;
  grain: Grain;
  /** Grains that have from 2 to about 400 buckets. */
  grains: Grain[];
  /** What `previous` compares with, if not the same number of hours directly before: that would compare nights with days. */
  previous?: Compare;
}

/** The ranges of the bar. `-60m` and not `-1h`: the latter is the current hour. */
export const IN_BAR: Preset[] = [
  { name: "1h", from: "-60m", to: "now", label: "Last hour", grain: "minute", grains: ["minute", "15m"] },
  { name: "24h", from: "-24h", to: "now", label: "Last 24 hours", grain: "hour", grains: ["15m", "hour"] },
  { name: "7d", from: "-7d", to: "now", label: "Last 7 days", grain: "hour", grains: ["hour", "day"], previous: "week" },
  { name: "30d", from: "-30d", to: "now", label: "Last 30 days", grain: "day", grains: ["hour", "day", "week"] },
  { name: "90d", from: "-90d", to: "now", label: "Last 90 days", grain: "day", grains: ["day", "week", "month"] },
];

/** Ranges of whole days of the zone; the menu for dates offers them. */
export const DAYS: Preset[] = [
  { name: "today", from: "-1d", to: "now", label: "Today", grain: "hour", grains: ["15m", "hour"] },
  { name: "yesterday", from: "-2d", to: "-1d", label: "Yesterday", grain: "hour", grains: ["15m", "hour"] },
];

export const PRESETS: Preset[] = [...IN_BAR, ...DAYS];

export const OPS: [Op, string][] = [
  ["eq", "is"],
  ["ne", "is not"],
  ["contains", "contains"],
  ["prefix", "begins with"],
];

const TABS: Tab[] = ["explore", "funnel", "retention"];
const GRAINS: Grain[] = ["minute", "15m", "hour", "day", "week", "month"];
const COMPARES: Compare[] = ["none", "previous", "week", "year"];
const ALL_OPS: Op[] = ["eq", "ne", "in", "nin", "prefix", "contains"];

/** The zone of this browser. */
export const LOCAL_ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

export const DEFAULTS: State = {
  tab: "explore",
  range: "24h",
  from: "",
  to: "",
  grain: "",
  tz: LOCAL_ZONE,
  compare: "previous",
  filters: [],
  measure: "events",
  tiles: ["", ""],
  table: false,
  kiosk: false,
  steps: [],
  within: "1d",
  first: "",
  again: "",
  cohort: "day",
};

const one = <T extends string>(value: string | null, of: readonly T[], other: T): T =>
  of.includes(value as T) ? (value as T) : other;

/** Reads the part of an address after `?`. A value that cannot be read gets its default. */
export function read(search: string): State {
  const given = new URLSearchParams(search);
  const text = (name: string) => given.get(name) ?? "";
  const from = text("from");
  const presets = PRESETS.map((preset) => preset.name);
  return {
    tab: one(given.get("tab"), TABS, DEFAULTS.tab),
    range: from ? "custom" : one(given.get("range"), presets, DEFAULTS.range),
    from,
    to: from ? text("to") || "now" : "",
    grain: one<"" | Grain>(given.get("grain"), GRAINS, ""),
    tz: zone(text("tz")),
    compare: one(given.get("compare"), COMPARES, DEFAULTS.compare),
    filters: given.getAll("filter").flatMap(parseFilter),
    measure: text("measure") || DEFAULTS.measure,
    tiles: [text("tile1"), text("tile2")],
    table: given.has("table"),
    kiosk: given.has("kiosk"),
    steps: given.getAll("step"),
    within: text("within") || DEFAULTS.within,
    first: text("first"),
    again: text("again"),
    cohort: one(given.get("cohort"), ["day", "week"] as const, DEFAULTS.cohort),
  };
}

/** The text that [`read`] reads, without values that are the default. */
export function write(state: State): string {
  const pairs: [string, string][] = [];
  const add = (name: string, value: string, usual: string) => {
    if (value !== usual) pairs.push([name, value]);
  };
  add("tab", state.tab, DEFAULTS.tab);
  if (state.range === "custom") {
    pairs.push(["from", state.from]);
    add("to", state.to, "now");
  } else {
    add("range", state.range, DEFAULTS.range);
  }
  add("grain", state.grain, "");
  add("tz", state.tz, DEFAULTS.tz);
  add("compare", state.compare, DEFAULTS.compare);
  for (const filter of state.filters) pairs.push(["filter", filterText(filter)]);
  add("measure", state.measure, DEFAULTS.measure);
  state.tiles.forEach((event, at) => add(`tile${at + 1}`, event, ""));
  if (state.table) pairs.push(["table", "1"]);
  if (state.kiosk) pairs.push(["kiosk", "1"]);
  for (const step of state.steps) pairs.push(["step", step]);
  add("within", state.within, DEFAULTS.within);
  add("first", state.first, "");
  add("again", state.again, "");
  add("cohort", state.cohort, DEFAULTS.cohort);
  return pairs.length === 0 ? "" : `?${new URLSearchParams(pairs)}`;
}

/** A link that shows somebody else the same: it has the zone, and not the key. */
export function shareable(state: State, origin: string): string {
  const search = new URLSearchParams(write(state));
  search.set("tz", state.tz);
  return `${origin}/?${search}`;
}

function zone(name: string): string {
  try {
    return name ? new Intl.DateTimeFormat("en", { timeZone: name }).resolvedOptions().timeZone : LOCAL_ZONE;
  } catch {
    return LOCAL_ZONE;
  }
}

/** A filter as the API takes it. */
export function filterText({ field, op, values }: Filter): string {
  const isList = op === "in" || op === "nin";
  const text = isList ? values.map((value) => value.replace(/[\\|]/g, "\\$&")).join("|") : (values[0] ?? "");
  return `${field}:${op}:${text}`;
}

function parseFilter(text: string): Filter[] {
  const [, field, op, value] = /^([^:]+):([^:]+):([^]*)$/.exec(text) ?? [];
  if (field === undefined || value === undefined || !ALL_OPS.includes(op as Op)) return [];
  const isList = op === "in" || op === "nin";
  return [{ field, op: op as Op, values: isList ? splitList(value) : [value] }];
}

/** Splits at each `|` that has no backslash before it. */
function splitList(text: string): string[] {
  const values: string[] = [];
  let value = "";
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === "|") {
      values.push(value);
      value = "";
      continue;
    }
    if (text[at] === "\\" && at + 1 < text.length) at += 1;
    value += text[at];
  }
  return [...values, value];
}

/** Adds a value to the filters of its field, or removes it if it is there. */
export function toggled(filters: Filter[], field: string, value: string): Filter[] {
  const own = filters.find((filter) => filter.field === field && (filter.op === "eq" || filter.op === "in"));
  if (own === undefined) return [...filters, { field, op: "eq", values: [value] }];
  const values = own.values.includes(value)
    ? own.values.filter((other) => other !== value)
    : [...own.values, value];
  if (values.length === 0) return filters.filter((filter) => filter !== own);
  const changed: Filter = { field, op: values.length === 1 ? "eq" : "in", values };
  return filters.map((filter) => (filter === own ? changed : filter));
}

/** Whether a value is one that the filters ask for. */
export function isChosen(filters: Filter[], field: string, value: string): boolean {
  return filters.some(
    (filter) => filter.field === field && (filter.op === "eq" || filter.op === "in") && filter.values.includes(value),
  );
}
