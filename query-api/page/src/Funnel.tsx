// Where people drop off: users who did each step, in this order, within a time.

import { type Row, figure, useAnswer } from "./answers";
import * as format from "./format";
import { Actions, Refused, Skeleton } from "./parts";
import { windowOf } from "./queries";
import { type State, filterText } from "./state";

interface FunnelAnswer {
  data: Row[];
  meta: { stale: boolean };
}

interface FunnelProps {
  state: State;
  refreshCount: number;
  /** Names of events. */
  events: string[];
  change: (changes: Partial<State>) => void;
}

const WITHIN: [string, string][] = [
  ["10m", "10 minutes"],
  ["1h", "an hour"],
  ["1d", "a day"],
  ["7d", "7 days"],
];

const MAX_STEPS = 8;
/** Steps that make a funnel in most products, if there are events of these names. */
const USUAL = ["visit", "view", "signup_start", "signup", "login", "checkout", "trial", "purchase"];

function stepsOf(state: State, events: string[]): string[] {
  if (state.steps.length >= 2) return state.steps;
  const usual = USUAL.filter((name) => events.includes(name));
  return (usual.length >= 2 ? usual : events).slice(0, 4);
}

/** The step at which most users are lost; none where none are. */
export function greatestLoss(counts: (number | null)[]): number | undefined {
  const lost = counts.map((count, at) => (counts[at - 1] ?? 0) - (count ?? counts[at - 1] ?? 0));
  const most = Math.max(...lost.slice(1));
  return most > 0 ? lost.indexOf(most, 1) : undefined;
}

export function Funnel({ state, refreshCount, events, change }: FunnelProps) {
  const steps = stepsOf(state, events);
  const { from, to } = windowOf(state);
  const pairs = steps.map((step) => ["steps", `event:eq:${step}`]);
  pairs.push(["within", state.within], ["from", from]);
  if (to !== "now") pairs.push(["to", to]);
  if (state.tz !== "UTC") pairs.push(["tz", state.tz]);
  for (const filter of state.filters) pairs.push(["filter", filterText(filter)]);
  const path = `/v1/funnel?${new URLSearchParams(pairs)}`;
  const isAsked = steps.length >= 2;
  const { body, refusal } = useAnswer<FunnelAnswer, null>(isAsked ? path : undefined, refreshCount, null);
  const set = (at: number, name: string) => change({ steps: steps.map((step, n) => (n === at ? name : step)) });
  const counts = steps.map((_, at) => figure(body?.data[at], "users"));
  const first = counts[0] ?? 0;
  const names = [...new Set([...events, ...steps])];
  const worst = greatestLoss(counts);

  return (
    <section class="panel wide" aria-label="Funnel">
      <header>
        <h2>Funnel</h2>
        <p class="small grow">Users who did these events in this order</p>
        <label class="inline">
          within
          <select value={state.within} onChange={(event) => change({ within: event.currentTarget.value })}>
            {WITHIN.map(([within, label]) => (
              <option key={within} value={within}>
                {label}
              </option>
            ))}
          </select>
        </label>
        <Actions path={path} name="Funnel" />
      </header>
      {refusal !== undefined && body === undefined ? (
        <Refused refusal={refusal} />
      ) : isAsked && body === undefined ? (
        <Skeleton rows={4} />
      ) : null}
      <table class="funnel">
        <thead>
          <tr>
            <th scope="col">Step</th>
            <th scope="col" class="figure">Users</th>
            <th scope="col" class="figure">Of step 1</th>
            <th scope="col" class="figure">Lost here</th>
            <th scope="col"><span class="hidden">Remove</span></th>
          </tr>
        </thead>
        <tbody>
          {steps.map((step, at) => {
            const count = counts[at] ?? null;
            const before = at === 0 ? null : (counts[at - 1] ?? null);
            const share = count === null || first === 0 ? null : count / first;
            const lost = count === null || before === null ? null : before - count;
            return (
              <tr key={at} class={at === worst ? "worst" : ""}>
                <th scope="row">
                  <span class="bar" style={{ width: `${100 * (share ?? 0)}%` }} />
                  <label>
                    <span class="order" aria-hidden="true">{at + 1}</span>
                    <span class="hidden">Step {at + 1}</span>
                    <select value={step} onChange={(event) => set(at, event.currentTarget.value)}>
                      {names.map((name) => (
                        <option key={name} value={name}>
                          {name}
                        </option>
                      ))}
                    </select>
                  </label>
                </th>
                <td class="figure">{format.number(count)}</td>
                <td class="figure">{share === null ? "–" : format.percent(share)}</td>
                <td class="figure lost">
                  {at === worst && <span class="most">most</span>}
                  {lost === null ? "" : `${format.number(lost)} (${before ? format.percent(lost / before) : "–"})`}
                </td>
                <td>
                  <button
                    type="button"
                    class="icon"
                    disabled={steps.length <= 2}
                    aria-label={`Remove step ${at + 1}, ${step}`}
                    onClick={() => change({ steps: steps.filter((_, n) => n !== at) })}
                  >
                    ✕
                  </button>
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
      <button
        type="button"
        class="more"
        disabled={steps.length >= MAX_STEPS || names.length === 0}
        onClick={() => change({ steps: [...steps, names.find((name) => !steps.includes(name)) ?? names[0] ?? ""] })}
      >
        Add a step
      </button>
    </section>
  );
}
