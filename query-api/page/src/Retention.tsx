// Do they come back: users by the period of their first event, and how many were there in each later period.

import { useAnswer } from "./answers";
import * as format from "./format";
import { Actions, Refused, Skeleton } from "./parts";
import { filterText, type State } from "./state";

interface Cohort {
  cohort: string;
  size: number;
  /** Users who came in the period of the cohort, and in each later one; null where it is not over. */
  cells: (number | null)[];
}

interface RetentionAnswer {
  data: Cohort[];
  meta: { stale: boolean };
}

interface RetentionProps {
  state: State;
  refreshCount: number;
  events: string[];
  change: (changes: Partial<State>) => void;
}

/** Periods after that of a cohort. */
const PERIODS = 7;
/** No event in particular: every event has a name that is not empty. */
const ANY = "";
const LENGTHS: [State["cohort"], string][] = [
  ["day", "By day"],
  ["week", "By week"],
];
const COLUMNS = Array.from({ length: PERIODS + 1 }, (_, period) => period);

export function Retention({ state, refreshCount, events, change }: RetentionProps) {
  const first = state.first || (events.includes("signup") ? "signup" : ANY);
  const condition = (event: string) => (event === ANY ? "event:ne:" : `event:eq:${event}`);
  const pairs: [string, string][] = [
    ["first", condition(first)],
    ["again", condition(state.again)],
    ["grain", state.cohort],
    ["periods", String(PERIODS)],
  ];
  if (state.tz !== "UTC") pairs.push(["tz", state.tz]);
  for (const filter of state.filters) pairs.push(["filter", filterText(filter)]);
  const path = `/v1/retention?${new URLSearchParams(pairs)}`;
  const { body, refusal } = useAnswer<RetentionAnswer, null>(path, refreshCount, null);
  const choice = (label: string, value: string, any: string, set: (value: string) => void) => (
    <label class="inline">
      {label}
      <select value={value} onChange={(event) => set(event.currentTarget.value)}>
        <option value={ANY}>{any}</option>
        {events.map((name) => (
          <option key={name} value={name}>
            {name}
          </option>
        ))}
      </select>
    </label>
  );
  return (
    <section class="panel wide" aria-label="Retention">
      <header>
        <h2>Retention</h2>
        <span class="grow" />
        {choice("First", first, "any event", (first) => change({ first }))}
        {choice("then", state.again, "any event", (again) => change({ again }))}
        <div class="segments" role="group" aria-label="Length of a period">
          {LENGTHS.map(([cohort, label]) => (
            <button type="button" key={cohort} aria-pressed={state.cohort === cohort} onClick={() => change({ cohort })}>
              {label}
            </button>
          ))}
        </div>
        <Actions path={path} name="Retention" />
      </header>
      {refusal !== undefined && body === undefined ? (
        <Refused refusal={refusal} />
      ) : body === undefined ? (
        <Skeleton rows={8} />
      ) : body.data.length === 0 ? (
        <p class="nothing">No users in this window</p>
      ) : (
        <div class="scroll" tabIndex={0} role="region" aria-label="Retention as a table">
          <table class="retention">
            <thead>
              <tr>
                <th scope="col">{state.cohort === "day" ? "Day" : "Week of"}</th>
                <th scope="col" class="figure">Users</th>
                {COLUMNS.map((period) => (
                  <th scope="col" class="figure" key={period}>
                    {state.cohort} {period}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {body.data.map(({ cohort, size, cells }) => (
                <tr key={cohort}>
                  <th scope="row">{format.day(Date.parse(cohort), state.tz)}</th>
                  <td class="figure">{format.number(size)}</td>
                  {COLUMNS.map((period) => (
                    <Cell key={period} users={cells[period] ?? null} size={size} />
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

function Cell({ users, size }: { users: number | null; size: number }) {
  if (users === null || size === 0) return <td class="figure none">–</td>;
  const share = users / size;
  // Five shades, so that each has a text colour with enough contrast.
  return (
    <td class="figure" data-shade={Math.min(4, Math.floor(share * 5))} title={`${format.number(users)} users`}>
      {format.percent(share)}
    </td>
  );
}
