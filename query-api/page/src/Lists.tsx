// Tables with bars: the values of a dimension, and polls. A click on a value filters the page by it.

import { useState } from "preact/hooks";

import { type QueryAnswer, type Row, figure, useAnswer } from "./answers";
import * as format from "./format";
import { Actions, Change, Refused, Skeleton } from "./parts";
import { type List, fieldName, listPath, measureOf } from "./queries";
import { type State, isChosen, toggled } from "./state";

/** Rows that are shown before the reader asks for all. */
const FEW = 8;

interface ListProps {
  list: List;
  state: State;
  refreshCount: number;
  change: (changes: Partial<State>) => void;
}

type Order = "count" | "change";

export function ListPanel({ list, state, refreshCount, change }: ListProps) {
  const path = listPath(state, list);
  const isUsers = measureOf(state.measure).measure === "users" && list.hasUsers;
  const measure = isUsers ? "users" : list.measure;
  const { body, context, refusal } = useAnswer<QueryAnswer, string>(path, refreshCount, measure);
  const [order, setOrder] = useState<Order>("count");
  const [isLong, setLong] = useState(false);
  const isCompared = state.compare !== "none" && body?.meta.compare !== undefined;

  const rows = ordered(body?.data ?? [], context, isCompared ? order : "count");
  const shown = isLong ? rows : rows.slice(0, FEW);
  const greatest = Math.max(1, ...rows.map((row) => figure(row, context) ?? 0));
  const toggle = (value: string) => change({ filters: toggled(state.filters, list.dimension, value) });
  const sort = (by: Order, label: string) => (
    <th scope="col" class="figure" aria-sort={order === by ? "descending" : "none"}>
      <button type="button" onClick={() => setOrder(by)}>
        {label}
      </button>
    </th>
  );
  const unit = context === "users" ? "Users" : "Events";

  return (
    <section class="panel list" aria-label={list.title}>
      <header>
        <h2>{list.title}</h2>
        <Actions path={path} name={list.title} />
      </header>
      <div class={isLong ? "rows long" : "rows"}>
        {refusal !== undefined && body === undefined ? (
          <Refused refusal={refusal} />
        ) : body === undefined ? (
          <Skeleton rows={FEW} />
        ) : rows.length === 0 ? (
          <p class="nothing">Nothing in this window</p>
        ) : (
          <table>
            <thead>
              <tr>
                <th scope="col">{fieldName(list.dimension)}</th>
                {isCompared ? sort("count", unit) : <th scope="col" class="figure">{unit}</th>}
                {isCompared && sort("change", "Change")}
              </tr>
            </thead>
            <tbody>
              {shown.map((row) => {
                const value = String(row[list.dimension] ?? "");
                const count = figure(row, context);
                const chosen = isChosen(state.filters, list.dimension, value);
                return (
                  <tr key={value}>
                    <th scope="row">
                      <span class="bar" style={{ width: `${(100 * (count ?? 0)) / greatest}%` }} />
                      <button type="button" class="value" aria-pressed={chosen} onClick={() => toggle(value)} title={value}>
                        {format.label(list.dimension, value)}
                      </button>
                    </th>
                    <td class="figure">{format.number(count)}</td>
                    {isCompared && (
                      <td class="figure">
                        <Change
                          change={row.change?.[context]}
                          then={`${format.number(row.compare?.[context])} before`}
                        />
                      </td>
                    )}
                  </tr>
                );
              })}
            </tbody>
          </table>
        )}
      </div>
      {rows.length > FEW && (
        <button type="button" class="more" aria-expanded={isLong} onClick={() => setLong(!isLong)}>
          {isLong ? "Show less" : `Show ${body?.meta.truncated ? "the first" : "all"} ${rows.length}`}
        </button>
      )}
    </section>
  );
}

/** By the measure as the API has ordered them, or by growth in events: the one that grew most is first. */
function ordered(rows: Row[], measure: string, order: Order): Row[] {
  if (order === "count") return rows;
  const growth = (row: Row) => row.change?.[measure] ?? -Infinity;
  return [...rows].sort((a, b) => growth(b) - growth(a));
}

interface PollRow {
  poll: string;
  option: string;
  votes: number;
  voters: number;
}

interface PollsAnswer {
  data: PollRow[];
  meta: { as_of: string | null; stale: boolean };
}

/** The options of a poll. Polls count all time, so neither range nor filters change them. */
export function PollPanel({ refreshCount }: { refreshCount: number }) {
  const { body } = useAnswer<PollsAnswer, null>("/v1/polls", refreshCount, null);
  const [chosen, setChosen] = useState("");
  // By descending votes, so that the first poll is the largest one.
  const polls = [...new Set((body?.data ?? []).map(({ poll }) => poll))];
  const poll = polls.includes(chosen) ? chosen : polls[0];
  if (poll === undefined) return null;
  const options = (body?.data ?? []).filter((row) => row.poll === poll);
  const sum = Math.max(1, options.reduce((sum, { votes }) => sum + votes, 0));
  const greatest = Math.max(1, ...options.map(({ votes }) => votes));
  return (
    <section class="panel list" aria-label="Polls">
      <header>
        <h2>Polls</h2>
        <select
          aria-label="Poll"
          value={poll}
          onChange={(event) => setChosen(event.currentTarget.value)}
        >
          {polls.map((poll) => (
            <option key={poll} value={poll}>
              {poll}
            </option>
          ))}
        </select>
        <Actions path={`/v1/polls/${encodeURIComponent(poll)}`} name={`Poll ${poll}`} csv={false} />
      </header>
      <div class="rows">
        <table>
          <thead>
            <tr>
              <th scope="col">Option (all time)</th>
              <th scope="col" class="figure">Votes</th>
              <th scope="col" class="figure">Share</th>
            </tr>
          </thead>
          <tbody>
            {options.slice(0, FEW).map(({ option, votes, voters }) => (
              <tr key={option} title={`${format.number(voters)} voters`}>
                <th scope="row">
                  <span class="bar" style={{ width: `${(100 * votes) / greatest}%` }} />
                  <span class="value">{option}</span>
                </th>
                <td class="figure">{format.number(votes)}</td>
                <td class="figure">{format.percent(votes / sum)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
