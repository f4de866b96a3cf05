// The bar: range, grain, zone, comparison, filters.

import { useState } from "preact/hooks";

import { Menu } from "./parts";
import { DAY, grainOf, grainsOf, fieldName } from "./queries";
import { type Compare, type Filter, type Grain, DAYS, IN_BAR, LOCAL_ZONE, OPS, type Op, type State } from "./state";
import * as format from "./format";

interface BarProps {
  state: State;
  /** Fields that can be filtered by. */
  fields: string[];
  change: (changes: Partial<State>) => void;
}

const COMPARES: [Compare, string][] = [
  ["previous", "Previous period"],
  ["week", "Week before"],
  ["year", "Year before"],
  ["none", "No comparison"],
];

const GRAIN_NAMES: Record<Grain, string> = {
  minute: "By minute",
  "15m": "By 15 minutes",
  hour: "By hour",
  day: "By day",
  week: "By week",
  month: "By month",
};

const zones = Intl.supportedValuesOf("timeZone").filter((zone) => zone !== "UTC" && zone !== LOCAL_ZONE);

export function Bar({ state, fields, change }: BarProps) {
  const isExplore = state.tab === "explore";
  const range = (name: string) => change({ range: name, from: "", to: "", grain: "" });
  return (
    <div class="bar-of-page">
      <div class="controls">
        {/* Retention has its own periods, a funnel is one number for each step. */}
        {state.tab !== "retention" && <div class="segments" role="group" aria-label="Range">
          {IN_BAR.map(({ name, label }) => (
            <button type="button" key={name} aria-pressed={state.range === name} title={label} onClick={() => range(name)}>
              {name}
            </button>
          ))}
          <CustomRange state={state} change={change} range={range} />
        </div>}
        {isExplore && <label>
          <span class="hidden">Grain</span>
          <select
            value={grainOf(state, Date.now())}
            onChange={(event) => change({ grain: event.currentTarget.value as Grain })}
          >
            {grainsOf(state, Date.now()).map((grain) => (
              <option key={grain} value={grain}>
                {GRAIN_NAMES[grain]}
              </option>
            ))}
          </select>
        </label>}
        {isExplore && <label>
          <span class="hidden">Compare with</span>
          <select
            value={state.compare}
            onChange={(event) => change({ compare: event.currentTarget.value as Compare })}
          >
            {COMPARES.map(([compare, label]) => (
              <option key={compare} value={compare}>
                {label}
              </option>
            ))}
          </select>
        </label>}
        <label class="zone">
          <span class="hidden">Time zone</span>
          <select value={state.tz} onChange={(event) => change({ tz: event.currentTarget.value })}>
            <option value={LOCAL_ZONE}>{LOCAL_ZONE.replace(/_/g, " ")}</option>
            {LOCAL_ZONE !== "UTC" && <option value="UTC">UTC</option>}
            {zones.map((zone) => (
              <option key={zone} value={zone}>
                {zone.replace(/_/g, " ")}
              </option>
            ))}
          </select>
        </label>
      </div>
      <div class="filters" role="group" aria-label="Filters">
        {state.filters.map((filter, at) => (
          <Chip
            key={`${filter.field}${at}`}
            filter={filter}
            set={(filter) => change({ filters: state.filters.flatMap((other, n) => (n === at ? filter : other)) })}
          />
        ))}
        <NewFilter fields={fields} add={(filter) => change({ filters: [...state.filters, filter] })} />
      </div>
    </div>
  );
}

const OPPOSITE: Partial<Record<Op, Op>> = { eq: "ne", ne: "eq", in: "nin", nin: "in" };

function Chip({ filter, set }: { filter: Filter; set: (filter: Filter[]) => void }) {
  const { field, op, values } = filter;
  const word = { eq: "is", in: "is", ne: "is not", nin: "is not", prefix: "begins with", contains: "contains" }[op];
  const text = values.map((value) => format.label(field, value)).join(" or ");
  const opposite = OPPOSITE[op];
  const name = `${fieldName(field).toLowerCase()} ${word} ${text}`;
  return (
    <span class="chip">
      <button
        type="button"
        disabled={opposite === undefined}
        title={opposite === undefined ? undefined : "Invert this filter"}
        onClick={() => opposite !== undefined && set([{ ...filter, op: opposite }])}
      >
        {fieldName(field)} <i>{word}</i> <b>{text}</b>
      </button>
      <button type="button" aria-label={`Remove the filter ${name}`} title="Remove" onClick={() => set([])}>
        <svg viewBox="0 0 16 16" width="12" height="12" aria-hidden="true">
          <path d="M4 4l8 8M12 4l-8 8" stroke="currentColor" stroke-width="2" stroke-linecap="round" />
        </svg>
      </button>
    </span>
  );
}

function NewFilter({ fields, add }: { fields: string[]; add: (filter: Filter) => void }) {
  const [field, setField] = useState("event");
  const [op, setOp] = useState<Op>("eq");
  const [value, setValue] = useState("");
  return (
    <Menu label="Add a filter (f)" text="+ Filter" class="new-filter">
      {(close) => (
        <form
          class="form"
          onSubmit={(event) => {
            event.preventDefault();
            add({ field, op, values: [value] });
            setValue("");
            close();
          }}
        >
          <label>
            Field
            <select value={field} onChange={(event) => setField(event.currentTarget.value)}>
              {fields.map((field) => (
                <option key={field} value={field}>
                  {fieldName(field)}
                </option>
              ))}
            </select>
          </label>
          <label>
            Condition
            <select value={op} onChange={(event) => setOp(event.currentTarget.value as Op)}>
              {OPS.map(([op, label]) => (
                <option key={op} value={op}>
                  {label}
                </option>
              ))}
            </select>
          </label>
          <label>
            Value
            <input value={value} onInput={(event) => setValue(event.currentTarget.value)} autocomplete="off" spellcheck={false} />
          </label>
          <button type="submit" class="primary">
            Add
          </button>
        </form>
      )}
    </Menu>
  );
}

interface CustomRangeProps {
  state: State;
  change: (changes: Partial<State>) => void;
  /** Chooses a preset by its name. */
  range: (name: string) => void;
}

/** Days of the zone, by name or by date; the last date is included, as people mean it. */
function CustomRange({ state, change, range }: CustomRangeProps) {
  const isCustom = state.range === "custom";
  const day = DAYS.find((preset) => preset.name === state.range);
  const today = new Date().toISOString().slice(0, 10);
  const [from, setFrom] = useState(isCustom ? state.from.slice(0, 10) : dayBefore(today, 6));
  const [to, setTo] = useState(isCustom && state.to !== "now" ? dayBefore(state.to.slice(0, 10), 1) : today);
  return (
    <Menu
      label="Choose dates"
      text={isCustom ? rangeText(state) : (day?.label ?? "Custom")}
      class={isCustom || day ? "chosen" : ""}
    >
      {(close) => (
        <form
          class="form"
          onSubmit={(event) => {
            event.preventDefault();
            if (!from || !to || from > to) return;
            change({ range: "custom", from, to: dayBefore(to, -1), grain: "" });
            close();
          }}
        >
          <div class="days">
            {DAYS.map(({ name, label }) => (
              <button
                type="button"
                class="button"
                key={name}
                aria-pressed={state.range === name}
                onClick={() => {
                  range(name);
                  close();
                }}
              >
                {label}
              </button>
            ))}
          </div>
          <label>
            From
            <input type="date" value={from} max={to} required onInput={(event) => setFrom(event.currentTarget.value)} />
          </label>
          <label>
            To (inclusive)
            <input type="date" value={to} min={from} required onInput={(event) => setTo(event.currentTarget.value)} />
          </label>
          <button type="submit" class="primary">
            Show
          </button>
        </form>
      )}
    </Menu>
  );
}

function dayBefore(date: string, days: number): string {
  return new Date(Date.parse(`${date}T00:00:00Z`) - days * DAY).toISOString().slice(0, 10);
}

function rangeText({ from, to, tz }: State): string {
  const isDate = (text: string) => /^\d{4}-\d\d-\d\d$/.test(text);
  if (isDate(from) && isDate(to)) {
    const last = dayBefore(to, 1);
    const text = (date: string) => format.day(Date.parse(`${date}T12:00:00Z`), "UTC");
    return from === last ? text(from) : `${text(from)} – ${text(last)}`;
  }
  const [start, end] = [Date.parse(from), to === "now" ? Date.now() : Date.parse(to)];
  const isShort = end - start < 2 * DAY;
  const last = isShort && format.day(start, tz) === format.day(end, tz) ? format.clock(end, tz) : format.dayAndClock(end, tz);
  return isShort
    ? `${format.dayAndClock(start, tz)} – ${last}`
    : `${format.day(start, tz)} – ${format.day(end - 1, tz)}`;
}
