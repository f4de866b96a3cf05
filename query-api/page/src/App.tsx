// The page: what the reader looks at is in the address; panels ask the API and show what it answers.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { type QueryAnswer, useAnswer, useOnce } from "./answers";
import { key } from "./api";
import { Bar } from "./Bar";
import { Chart, ChartTable } from "./Chart";
import { Empty } from "./Empty";
import * as format from "./format";
import { type Level, useAge } from "./freshness";
import { Funnel } from "./Funnel";
import { Help, useShortcuts } from "./Help";
import { ListPanel, PollPanel } from "./Lists";
import { type Live, useLive, useRefreshCount } from "./live";
import { Actions, Refused, copied } from "./parts";
import { type RollupMeta, grainOf, listPath, lists, measureLabel, measureOf, seriesPath } from "./queries";
import { Retention } from "./Retention";
import { Strip } from "./Strip";
import { type State, type Tab, read, shareable, write } from "./state";
import { type Theme, applyTheme, nextTheme, storedTheme } from "./theme";
import { Tiles } from "./Tiles";

interface MetaAnswer {
  rollups: RollupMeta[];
  /** What the reader's key permits; without keys everything. */
  key?: { operator?: boolean };
}

const TABS: [Tab, string][] = [
  ["explore", "Explore"],
  ["funnel", "Funnel"],
  ["retention", "Retention"],
];

export function App() {
  const [state, change] = useAddress();
  const [theme, setTheme] = useTheme();
  const [isHelp, setHelp] = useState(false);
  const live = useLive();
  const refreshCount = useRefreshCount(live);
  const declared = useOnce<MetaAnswer>("/v1/meta");
  const all = lists(declared?.rollups);

  const eventList = all[0];
  const events = useAnswer<QueryAnswer, null>(
    eventList && listPath({ ...state, measure: "events" }, eventList),
    refreshCount,
    null,
  );
  const names = (events.body?.data ?? []).map((row) => String(row.event ?? "")).filter((name) => name !== "");
  const isEmpty = useIsEmpty(events.body, state, refreshCount);

  useShortcuts({ state, change, setHelp, theme: () => setTheme(nextTheme(theme)) });
  useEffect(() => {
    document.documentElement.classList.toggle("kiosk", state.kiosk);
  }, [state.kiosk]);

  return (
    <>
      <a class="skip" href="#content">
        Skip to the numbers
      </a>
      <Header {...{ state, change, theme, setTheme, setHelp, live }} />
      <main id="content" tabIndex={-1}>
        {isEmpty ? (
          <Empty />
        ) : (
          <>
            <h1 class="hidden">Millrace, {TABS.find(([tab]) => tab === state.tab)?.[1]}</h1>
            <Bar state={state} change={change} fields={all.map((list) => list.dimension)} />
            {state.tab === "explore" && (
              <>
                <section class="panel overview" aria-label="Overview">
                  <Tiles state={state} refreshCount={refreshCount} events={events.body} change={change} />
                  <ChartPanel {...{ state, change, refreshCount, theme }} />
                </section>
                <div class="lists">
                  {all.map((list) => (
                    <ListPanel key={list.dimension} {...{ list, state, refreshCount, change }} />
                  ))}
                  <PollPanel refreshCount={refreshCount} />
                </div>
              </>
            )}
            {state.tab === "funnel" && <Funnel {...{ state, refreshCount, change }} events={names} />}
            {state.tab === "retention" && <Retention {...{ state, refreshCount, change }} events={names} />}
            {declared?.key?.operator && <Strip refreshCount={refreshCount} />}
          </>
        )}
      </main>
      <Footer />
      {isHelp && <Help close={() => setHelp(false)} />}
    </>
  );
}

/** The state in the address. Each change is an entry in the browser's history. */
function useAddress(): [State, (changes: Partial<State>) => void] {
  const [state, setState] = useState(() => read(location.search));
  // The state that the address has now. So two changes before the next render both take effect, and a change after a
  // step back begins with the restored state.
  const current = useRef(state);
  const show = useCallback((state: State) => {
    current.current = state;
    setState(state);
  }, []);
  useEffect(() => {
    const back = () => show(read(location.search));
    addEventListener("popstate", back);
    return () => removeEventListener("popstate", back);
  }, []);
  const change = useCallback((changes: Partial<State>) => {
    const next = { ...current.current, ...changes };
    const search = write(next);
    if (search !== write(current.current)) history.pushState(null, "", location.pathname + search + location.hash);
    show(next);
  }, []);
  return [state, change];
}

function useTheme(): [Theme, (theme: Theme) => void] {
  const [theme, setTheme] = useState(storedTheme);
  const set = (theme: Theme) => {
    applyTheme(theme);
    setTheme(theme);
  };
  return [theme, set];
}

/** Whether nothing was ever counted: the window is empty and so is the longest one. */
function useIsEmpty(events: QueryAnswer | undefined, state: State, refreshCount: number): boolean {
  const isNothing = events?.data.length === 0 && state.filters.length === 0;
  const ever = useAnswer<QueryAnswer, null>(isNothing ? "/v1/query?from=2000-01-01" : undefined, refreshCount, null);
  const [row] = ever.body?.data ?? [];
  return isNothing && ever.body !== undefined && !(typeof row?.events === "number" && row.events > 0);
}

interface HeaderProps {
  state: State;
  change: (changes: Partial<State>) => void;
  theme: Theme;
  setTheme: (theme: Theme) => void;
  setHelp: (isOpen: boolean) => void;
  live: Live | undefined;
}

function Header({ state, change, theme, setTheme, setHelp, live }: HeaderProps) {
  const [done, setDone] = useState("");
  const share = async () => {
    setDone((await copied(shareable(state, location.origin))) ? "Link copied" : "Copying failed");
    setTimeout(() => setDone(""), 2500);
  };
  const users = live?.active?.minutes_5;
  // The last minute that is over: the current one would always look as if events became fewer.
  const minute = live?.series?.minutes.at(-2)?.events;
  return (
    <header class="top">
      <a class="brand" href={`/${location.hash}`} aria-label="Millrace, start">
        <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
          <rect width="32" height="32" rx="8" class="mark" />
          <path d="M6 21c4 0 4-4 8-4s4 4 8 4 3-2 5-3M6 14c4 0 4-4 8-4s4 4 8 4 3-2 5-3" class="waves" />
        </svg>
        <span>Millrace</span>
      </a>
      <nav class="tabs" aria-label="Views">
        {TABS.map(([tab, label]) => (
          <button
            type="button"
            key={tab}
            aria-current={state.tab === tab ? "page" : undefined}
            onClick={() => change({ tab })}
          >
            {label}
          </button>
        ))}
      </nav>
      {(users !== undefined || minute !== undefined) && (
        <p class="pulse">
          {users !== undefined && (
            <span title="Users active in the last five minutes">
              <b>{format.number(users)}</b> online
            </span>
          )}
          {minute !== undefined && (
            <span title="Events in the last full minute">
              <b>{format.number(minute)}</b> events/min
            </span>
          )}
        </p>
      )}
      <AgePill />
      <div class="tools">
        <span class="done" role="status">
          {done}
        </span>
        <button type="button" class="icon" aria-label="Copy a link to this view" title="Copy a link to this view" onClick={share}>
          <svg viewBox="0 0 20 20" width="18" height="18" class="stroke" aria-hidden="true">
            <path d="M8.5 11.5l3-3M9 6l1.6-1.6a3.5 3.5 0 015 5L14 11M11 14l-1.6 1.6a3.5 3.5 0 01-5-5L6 9" />
          </svg>
        </button>
        <button
          type="button"
          class="icon"
          aria-label={`Colours: ${theme}. Change them`}
          title={`Colours: ${theme} (t)`}
          onClick={() => setTheme(nextTheme(theme))}
        >
          <svg viewBox="0 0 20 20" width="18" height="18" class="stroke" aria-hidden="true">
            <circle cx="10" cy="10" r="7" />
            <path d="M10 3a7 7 0 000 14z" class="half" />
          </svg>
        </button>
        <button type="button" class="icon" aria-label="Keyboard shortcuts and help" title="Keyboard shortcuts and help (?)" onClick={() => setHelp(true)}>
          <svg viewBox="0 0 20 20" width="18" height="18" class="stroke" aria-hidden="true">
            <circle cx="10" cy="10" r="7" />
            <path d="M8 8a2 2 0 114 .2c0 1.2-2 1.4-2 3M10 14v.1" />
          </svg>
        </button>
      </div>
    </header>
  );
}

const WORDS: Record<Level, string> = {
  live: "Live",
  late: "Late",
  stopped: "Not updating",
  unknown: "Waiting for data",
};

/** How old the numbers on the screen are: in words, and as a colour. */
function AgePill() {
  const { age, level } = useAge();
  return (
    <p
      class={`age ${level}`}
      data-level={level}
      title="The age of the oldest number on this page. A number that is 5 s old counts all events that were in Kafka 5 s ago."
    >
      <span class="dot" aria-hidden="true" />
      <span class="word">{WORDS[level]}</span>
      {age !== undefined && <span class="number">{format.age(age)} old</span>}
      <span class="hidden" role="status">
        {level === "live" || level === "unknown" ? "" : `The numbers are ${WORDS[level].toLowerCase()}`}
      </span>
    </p>
  );
}

interface ChartPanelProps {
  state: State;
  change: (changes: Partial<State>) => void;
  refreshCount: number;
  theme: Theme;
}

function ChartPanel({ state, change, refreshCount, theme }: ChartPanelProps) {
  const grain = grainOf(state, Date.now());
  const path = seriesPath(state, Date.now());
  const { measure } = measureOf(state.measure);
  const label = measureLabel(state.measure);
  const context = { measure, label, grain, tz: state.tz };
  const { body, context: shown, refusal } = useAnswer<QueryAnswer, typeof context>(path, refreshCount, context);
  const scheme = useScheme();
  const height = useChartHeight();
  const isCompared = body?.meta.compare !== undefined;
  return (
    <div class="chart-panel">
      <div class="chart-head">
        <h2>
          {label}
          <span class="small"> by {grain === "15m" ? "15 minutes" : grain}</span>
        </h2>
        {isCompared && (
          <p class="legend small" aria-hidden="true">
            <i class="line" /> this period <i class="line before" /> before
          </p>
        )}
        {state.range === "custom" && (
          <button type="button" class="button" onClick={() => history.back()}>
            Zoom out
          </button>
        )}
        <Actions path={path} name={label} />
      </div>
      {refusal !== undefined && body === undefined ? (
        <div class="chart" style={{ height: `${height}px` }}>
          <Refused refusal={refusal} />
        </div>
      ) : body === undefined ? (
        <div class="chart" style={{ height: `${height}px` }} />
      ) : (
        <Chart
          answer={body}
          {...shown}
          isCompared={isCompared}
          height={height}
          theme={theme + scheme}
          onZoom={(from, to) => change({ range: "custom", from, to, grain: "" })}
        />
      )}
      <details
        class="as-table"
        open={state.table}
        onToggle={(event) => {
          const table = event.currentTarget.open;
          if (table !== state.table) change({ table });
        }}
      >
        <summary>
          <span>Table</span>
          <span class="provenance">{body !== undefined && provenance(body, state.tz)}</span>
        </summary>
        {state.table && body !== undefined && <ChartTable answer={body} {...shown} isCompared={isCompared} />}
      </details>
    </div>
  );
}

/** What the answer says about itself. */
function provenance({ meta }: QueryAnswer, tz: string): string {
  const until = meta.complete_until === null ? undefined : Date.parse(meta.complete_until);
  const complete = until === undefined ? "" : ` Complete until ${format.dayAndClock(until, tz)}; the dashed part is still being counted.`;
  return `${meta.exact ? "Exact." : "Estimated."}${complete}`;
}

/** Whether the system is dark: the canvas has to be drawn again when that changes. */
function useScheme(): string {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const [isDark, setDark] = useState(dark.matches);
  useEffect(() => {
    const follow = () => setDark(dark.matches);
    dark.addEventListener("change", follow);
    return () => dark.removeEventListener("change", follow);
  }, []);
  return isDark ? "dark" : "light";
}

function useChartHeight(): number {
  const height = () => (innerWidth < 600 ? 220 : innerHeight > 1300 ? 420 : 300);
  const [current, setHeight] = useState(height);
  useEffect(() => {
    const follow = () => setHeight(height());
    addEventListener("resize", follow);
    return () => removeEventListener("resize", follow);
  }, []);
  return current;
}

function Footer() {
  return (
    <footer class="small">
      <p>{key !== undefined && "The key in the address of this page gives access to the numbers; copied links leave it out."}</p>
      <p>
        Press <kbd>?</kbd> for keyboard shortcuts.
      </p>
    </footer>
  );
}
