// The numbers of the window, each with its change. A tile chooses what the chart shows.

import { type QueryAnswer, type Row, figure, useAnswer } from "./answers";
import * as format from "./format";
import { Change } from "./parts";
import { measureLabel, measureOf, totalPath } from "./queries";
import type { State } from "./state";

interface TilesProps {
  state: State;
  refreshCount: number;
  /** Rows of the list of events, which the tiles of single events are taken from. */
  events: QueryAnswer | undefined;
  change: (changes: Partial<State>) => void;
}

/** Events that most people want to see, if there are any of them. */
const WANTED = ["signup", "purchase", "checkout", "login"];

/** The place of an event among the wanted ones; the others are behind them. */
function rank(name: string): number {
  const at = WANTED.indexOf(name);
  return at < 0 ? WANTED.length : at;
}

/** The events of the two last tiles: those of the state, then the one in the chart, wanted ones, then the most frequent ones. */
export function tileEvents(state: State, names: string[]): string[] {
  const { event } = measureOf(state.measure);
  const likely = [...(event === undefined ? [] : [event]), ...WANTED.filter((name) => names.includes(name)), ...names];
  const free = [...new Set(likely)].filter((name) => !state.tiles.includes(name));
  // In a fixed order, so that a click on a tile does not move it.
  const own = free.slice(0, state.tiles.filter((chosen) => chosen === "").length);
  own.sort((a, b) => rank(a) - rank(b));
  return state.tiles.map((chosen) => chosen || (own.shift() ?? "")).filter((name) => name !== "");
}

export function Tiles({ state, refreshCount, events, change }: TilesProps) {
  const users = useAnswer<QueryAnswer, null>(totalPath(state, "users"), refreshCount, null);
  const all = useAnswer<QueryAnswer, null>(totalPath(state, "events"), refreshCount, null);
  const rows = events?.data ?? [];
  const names = rows.map((row) => String(row.event ?? "")).filter((name) => name !== "");
  const choose = (measure: string) => change({ measure });
  const isCompared = state.compare !== "none";
  const missing = users.refusal?.code === "not_covered" ? "not counted this way" : undefined;
  const error = users.body?.meta.exact === false ? users.body.meta.error?.users : undefined;
  return (
    <div class="tiles" role="group" aria-label="What the chart shows">
      <Tile
        id="users"
        label={error ? `Users, ±${format.percent(error)}` : "Users"}
        row={users.body?.data[0]}
        measure="users"
        note={missing}
        {...{ state, choose, isCompared }}
      />
      <Tile id="events" label="Events" row={all.body?.data[0]} measure="events" {...{ state, choose, isCompared }} />
      {tileEvents(state, names).map((event, at) => {
        const id = `event:${event}`;
        const row = rows.find((row) => row.event === event) ?? (events ? { events: 0 } : undefined);
        const pick = (name: string) => {
          const tiles: [string, string] = [...state.tiles];
          tiles[at] = name;
          change({ tiles, measure: `event:${name}` });
        };
        return (
          <Tile key={at} id={id} label={event} row={row} measure="events" {...{ state, choose, isCompared }}>
            {names.length > 1 && (
              <label class="pick" title="Choose another event">
                <span class="hidden">Event of tile {at + 3}</span>
                <select value={event} onChange={(change) => pick(change.currentTarget.value)}>
                  {(names.includes(event) ? names : [event, ...names]).map((name) => (
                    <option key={name} value={name}>
                      {name}
                    </option>
                  ))}
                </select>
              </label>
            )}
          </Tile>
        );
      })}
    </div>
  );
}

interface TileProps {
  id: string;
  label: string;
  row: Row | undefined;
  measure: string;
  note?: string | undefined;
  state: State;
  choose: (measure: string) => void;
  isCompared: boolean;
  children?: preact.ComponentChildren;
}

function Tile({ id, label, row, measure, note, state, choose, isCompared, children }: TileProps) {
  const value = figure(row, measure);
  const before = row?.compare?.[measure];
  return (
    <div class={`tile ${state.measure === id ? "chosen" : ""}`} data-tile={id}>
      <button type="button" aria-pressed={state.measure === id} onClick={() => choose(id)}>
        <span class="label">{label}</span>
        <span class="number">{row === undefined && note === undefined ? "\u2007" : format.number(value)}</span>
        <span class="below">
          {note ??
            (isCompared ? (
              <>
                <Change change={row?.change?.[measure]} />{" "}
                {before !== undefined && <span class="before">from {format.number(before)}</span>}
              </>
            ) : (
              "\u2007"
            ))}
        </span>
        <span class="hidden">Show {measureLabel(id)} in the chart</span>
      </button>
      {children}
    </div>
  );
}
