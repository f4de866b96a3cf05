// Which questions the page asks the API. Pure.

import { type Compare, type Filter, type Grain, PRESETS, type State, filterText } from "./state";

export const MINUTE = 60_000;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

/** Rows of a list that are asked for. */
const LIST_ROWS = 50;

export interface Window {
  from: string;
  to: string;
}

export function windowOf(state: State): Window {
  const preset = PRESETS.find((preset) => preset.name === state.range);
  return preset ? { from: preset.from, to: preset.to } : { from: state.from, to: state.to };
}

/** The grains that make sense for the range, the usual one first. */
export function grainsOf(state: State, now: number): Grain[] {
  const preset = PRESETS.find((preset) => preset.name === state.range);
  if (preset) return [preset.grain, ...preset.grains.filter((grain) => grain !== preset.grain)];
  const end = state.to === "now" ? now : Date.parse(state.to);
  const span = end - Date.parse(state.from);
  if (span <= 3 * HOUR) return ["minute", "15m", "hour"];
  if (span <= 2 * DAY) return ["hour", "15m"];
  if (span <= 8 * DAY) return ["hour", "day"];
  if (span <= 200 * DAY) return ["day", "week", "month"];
  return ["week", "day", "month"];
}

export function grainOf(state: State, now: number): Grain {
  const grains = grainsOf(state, now);
  return grains.find((grain) => grain === state.grain) ?? grains[0] ?? "hour";
}

/** The measure of the API that a choice of the page stands for, and the event that it is about. */
export function measureOf(choice: string): { measure: "events" | "users"; event?: string } {
  if (choice.startsWith("event:")) return { measure: "events", event: choice.slice("event:".length) };
  return { measure: choice === "users" ? "users" : "events" };
}

export function measureLabel(choice: string): string {
  const { measure, event } = measureOf(choice);
  return event ?? (measure === "users" ? "Users" : "Events");
}

interface Parts {
  measures: string;
  dimensions?: string;
  grain?: Grain;
  limit?: number;
  filters?: Filter[];
  rollup?: string;
}

function path(state: State, { measures, dimensions, grain, limit, filters = [], rollup }: Parts): string {
  const { from, to } = windowOf(state);
  const pairs: [string, string][] = [["measures", measures]];
  if (dimensions !== undefined) pairs.push(["dimensions", dimensions]);
  if (grain !== undefined) pairs.push(["grain", grain]);
  pairs.push(["from", from]);
  if (to !== "now") pairs.push(["to", to]);
  if (state.tz !== "UTC") pairs.push(["tz", state.tz]);
  for (const filter of [...state.filters, ...filters]) pairs.push(["filter", filterText(filter)]);
  if (state.compare !== "none") pairs.push(["compare", compareOf(state)]);
  if (limit !== undefined) pairs.push(["limit", String(limit)]);
  if (rollup !== undefined) pairs.push(["rollup", rollup]);
  return `/v1/query?${new URLSearchParams(pairs)}`;
}

/** With what the API compares. */
function compareOf({ compare, range }: State): Compare {
  const preset = PRESETS.find(({ name }) => name === range);
  return compare === "previous" ? (preset?.previous ?? compare) : compare;
}

const about = (event: string | undefined): Filter[] =>
  event === undefined ? [] : [{ field: "event", op: "eq", values: [event] }];

/** The chart. */
export function seriesPath(state: State, now: number): string {
  const { measure, event } = measureOf(state.measure);
  const grain = grainOf(state, now);
  return path(state, { measures: measure, grain, limit: 10_000, filters: about(event) });
}

/** One number for the whole window. */
export function totalPath(state: State, measure: "events" | "users"): string {
  return path(state, { measures: measure });
}

/** A list: the values of a dimension with most of a measure. */
export function listPath(state: State, list: List): string {
  const { measure, event } = measureOf(state.measure);
  const isUsers = measure === "users" && list.hasUsers;
  // Every event has its own row in the list of events, so the choice of one does not narrow it.
  const filters = list.dimension === "event" ? [] : about(event);
  return path(state, {
    measures: isUsers ? "users" : list.measure,
    dimensions: list.dimension,
    limit: LIST_ROWS,
    filters: [...list.where, ...filters],
    ...(list.rollup === undefined ? {} : { rollup: list.rollup }),
  });
}

/** A list of the page. */
export interface List {
  dimension: string;
  title: string;
  /** The measure of the rollup that is shown as the count. */
  measure: string;
  /** Whether a rollup has users by this dimension. */
  hasUsers: boolean;
  /** The rollup counts only events that meet these filters. */
  where: Filter[];
  /** The only rollup that has the dimension; none for the three that every declaration is expected to have. */
  rollup?: string;
}

/** What `/v1/meta` says about a rollup, as far as the page needs it. */
export interface RollupMeta {
  name: string;
  dimensions: string[];
  measures: { name: string; type: string }[];
  where: { field: string; values: string[] }[];
}

/** Dimensions that every declaration is expected to have: the title of the list, and what one value is. */
const USUAL: Record<string, { many: string; one: string }> = {
  event: { many: "Events", one: "Event" },
  country: { many: "Countries", one: "Country" },
  device_os: { many: "Systems", one: "System" },
};
/** Dimensions with a value for nearly every event: a list of their greatest says nothing. */
const TOO_MANY_VALUES = ["user_id", "device_id", "session", "param_str"];

/** The lists of the page: the usual ones, then a list for each further declared dimension. */
export function lists(rollups: RollupMeta[] | undefined): List[] {
  const measured = (dimension: string, type: string) =>
    (rollups ?? []).some(
      (rollup) =>
        rollup.dimensions.includes(dimension) && rollup.measures.some((measure) => measure.type === type),
    );
  const usual = Object.entries(USUAL).map(([dimension, { many }]) => ({
    dimension,
    title: many,
    measure: "events",
    hasUsers: rollups === undefined ? dimension === "event" : measured(dimension, "uniq_exact(user)"),
    where: [],
  }));
  const more = new Map<string, List>();
  for (const rollup of rollups ?? []) {
    const count = rollup.measures.find((measure) => measure.type === "count");
    // Polls have a list of their own.
    if (count === undefined || rollup.name === "poll_votes") continue;
    for (const dimension of rollup.dimensions) {
      if (dimension in USUAL || TOO_MANY_VALUES.includes(dimension) || more.has(dimension)) continue;
      more.set(dimension, {
        dimension,
        title: fieldName(dimension),
        measure: count.name,
        hasUsers: false,
        where: rollup.where.map(({ field, values }) => ({ field, op: "in", values })),
        ...(count.name === "events" ? {} : { rollup: rollup.name }),
      });
    }
  }
  return [...usual, ...more.values()];
}

/** What a value of the dimension is: `props.app.version` is an "App version". */
export function fieldName(dimension: string): string {
  const usual = USUAL[dimension];
  if (usual !== undefined) return usual.one;
  const words = dimension.replace(/^props\./, "").replace(/[._]/g, " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** A path as a command. The key stays out of it: what is copied ends up in chats and shell histories. */
export function curl(origin: string, path: string, hasKey: boolean): string {
  const quoted = (text: string) => `'${text.replace(/'/g, "'\\''")}'`;
  const auth = hasKey ? ' -H "Authorization: Bearer $MILLRACE_KEY"' : "";
  return `curl ${quoted(origin + path)}${auth}`;
}

/** The same answer as CSV. */
export function csvPath(path: string): string {
  return path.replace(/^(\/v1\/[a-z]+)\?/, "$1?format=csv&");
}
