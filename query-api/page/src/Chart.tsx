// The chart: a line, its comparison and what is not complete yet dashed. Drag to zoom, arrow keys to read.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";

import { type QueryAnswer, type Row, figure } from "./answers";
import * as format from "./format";
import { Change } from "./parts";
import type { Grain } from "./state";

export interface Series {
  answer: QueryAnswer;
  measure: string;
  label: string;
  grain: Grain;
  tz: string;
  isCompared: boolean;
}

export interface ChartProps extends Series {
  height: number;
  /** Changes with the colours, which the canvas does not follow by itself. */
  theme: string;
  onZoom: (from: string, to: string) => void;
}

const INCREMENTS = [1, 2, 5].flatMap((step) => Array.from({ length: 16 }, (_, power) => step * 10 ** power)).sort((a, b) => a - b);

/** Index of the last row whose bucket is complete; -1 if none is. */
export function lastComplete({ data, meta }: QueryAnswer): number {
  const until = meta.complete_until === null ? -Infinity : Date.parse(meta.complete_until);
  // A bucket is complete if the next one has begun by `complete_until`.
  return data.reduce((last, row, at) => (end(data, meta, at) <= until && row.time ? at : last), -1);
}

/** The end of a row's bucket: the start of the next one, or the end of the window. */
function end(data: Row[], meta: QueryAnswer["meta"], at: number): number {
  const next = data[at + 1]?.time;
  return Date.parse(next ?? meta.window.to);
}

export function Chart({ answer, measure, label, grain, tz, isCompared, height, theme, onZoom }: ChartProps) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const [at, setAt] = useState<number | null>(null);
  const [spoken, setSpoken] = useState("");

  const rows = answer.data;
  const data = useMemo(() => columns(answer, measure), [answer, measure]);
  const latest = useRef({ rows, onZoom, meta: answer.meta });
  latest.current = { rows, onZoom, meta: answer.meta };

  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    const zoom = (left: number, right: number) => {
      const u = plot.current;
      const { rows, meta, onZoom } = latest.current;
      if (u === undefined) return;
      const [first, last] = [u.posToIdx(left), u.posToIdx(right)];
      const from = rows[first]?.time;
      const to = rows[last + 1]?.time ?? meta.window.to;
      if (from !== undefined && last > first) onZoom(from, to);
    };
    const u = new uPlot(options(element, tz, height, setAt, zoom), data, element);
    plot.current = u;
    const resize = new ResizeObserver(() => u.setSize({ width: element.clientWidth, height }));
    resize.observe(element);
    return () => {
      resize.disconnect();
      u.destroy();
      plot.current = undefined;
    };
  }, [tz, height, theme]);

  useEffect(() => plot.current?.setData(data), [data]);

  const say = (at: number) => {
    const row = rows[at];
    if (row !== undefined) setSpoken(`${when(row, grain, tz)}: ${format.number(figure(row, measure))} ${label}`);
  };
  const move = (to: number) => {
    const u = plot.current;
    const x = u?.data[0][to];
    if (u === undefined || x === undefined) return;
    u.setCursor({ left: u.valToPos(x, "x"), top: u.over.clientHeight / 2 });
    say(to);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const last = rows.length - 1;
    const now = at ?? last + 1;
    const moves: Record<string, number> = {
      ArrowLeft: Math.max(0, now - 1),
      ArrowRight: Math.min(last, now + 1),
      Home: 0,
      End: last,
    };
    const to = moves[event.key];
    if (to === undefined) return;
    event.preventDefault();
    move(to);
  };
  const hide = () => plot.current?.setCursor({ left: -10, top: -10 });

  const row = at === null ? undefined : rows[at];
  const [x, width] = tip(plot.current, at);
  return (
    <div class="chart" style={{ height: `${height}px` }}>
      <div
        class="plot"
        ref={box}
        role="application"
        aria-roledescription="line chart"
        aria-label={`${label} over time. Arrow keys read the values; the table below has all of them.`}
        tabIndex={0}
        onKeyDown={onKeyDown}
        onBlur={hide}
      />
      {row !== undefined && (
        <div class={`tip ${x > width / 2 ? "left" : "right"}`} style={{ transform: `translateX(${x}px)` }}>
          <div>
            <p class="small">
              {when(row, grain, tz)}
              {at !== null && at > lastComplete(answer) ? " · not complete yet" : ""}
            </p>
            <p>
              <b>{format.number(figure(row, measure))}</b> {label}
            </p>
            {isCompared && (
              <p class="small">
                {format.number(row.compare?.[measure])} before <Change change={row.change?.[measure]} />
              </p>
            )}
          </div>
        </div>
      )}
      <p class="hidden" role="status">
        {spoken}
      </p>
    </div>
  );
}

function when(row: Row, grain: Grain, tz: string): string {
  return format.bucket(Date.parse(row.time ?? ""), grain, tz);
}

/** Where the tooltip is, and how wide the chart is. */
function tip(u: uPlot | undefined, at: number | null): [number, number] {
  const x = at === null ? undefined : u?.data[0][at];
  if (u === undefined || x === undefined) return [0, 0];
  return [u.valToPos(x, "x") + u.over.offsetLeft, u.width];
}

/** Times in seconds; the complete part, the incomplete part, the comparison. The parts share a point. */
function columns(answer: QueryAnswer, measure: string): uPlot.AlignedData {
  const { data } = answer;
  const last = lastComplete(answer);
  const times = data.map((row) => Date.parse(row.time ?? "") / 1000);
  const values = data.map((row) => figure(row, measure));
  return [
    times,
    data.map((row) => row.compare?.[measure] ?? null),
    values.map((value, at) => (at <= last ? value : null)),
    values.map((value, at) => (at >= last ? value : null)),
  ];
}

function options(
  element: HTMLElement,
  tz: string,
  height: number,
  onMove: (at: number | null) => void,
  onZoom: (left: number, right: number) => void,
): uPlot.Options {
  const style = getComputedStyle(element);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const [accent, muted, line, text] = [colour("--accent"), colour("--muted-line"), colour("--grid"), colour("--soft")];
  const fill = (u: uPlot) => {
    const gradient = u.ctx.createLinearGradient(0, u.bbox.top, 0, u.bbox.top + u.bbox.height);
    gradient.addColorStop(0, colour("--accent-fill"));
    gradient.addColorStop(1, colour("--accent-fade"));
    return gradient;
  };
  const font = `12px ${style.fontFamily}`;
  const points = { show: (u: uPlot) => u.data[0].length < 3 };
  return {
    width: element.clientWidth,
    height,
    padding: [12, 22, 0, 0],
    legend: { show: false },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), tz),
    scales: { y: { range: (_, __, max) => [0, Math.max(1, (max ?? 0) * 1.08)] } },
    cursor: {
      y: false,
      points: { size: 9, width: 2, stroke: () => colour("--panel"), fill: () => accent },
      drag: { x: true, y: false, setScale: false },
    },
    series: [
      {},
      { stroke: muted, width: 1.5, dash: [3, 4], points: { show: false } },
      { stroke: accent, width: 2, fill, points },
      { stroke: accent, width: 2, dash: [5, 5], fill, points },
    ],
    axes: [
      {
        stroke: text,
        font,
        gap: 8,
        size: 34,
        space: 72,
        grid: { show: false },
        ticks: { show: false },
        values: (_, splits) => {
          const step = ((splits[1] ?? 0) - (splits[0] ?? 0)) * 1000;
          return splits.map((split) => format.refreshCount(split * 1000, step, tz));
        },
      },
      {
        stroke: text,
        font,
        gap: 6,
        size: 52,
        space: 44,
        incrs: INCREMENTS,
        grid: { stroke: line, width: 1 },
        ticks: { show: false },
        values: (_, splits) => splits.map((split) => format.short(split)),
      },
    ],
    hooks: {
      setCursor: [(u) => onMove(u.cursor.left !== undefined && u.cursor.left >= 0 ? (u.cursor.idx ?? null) : null)],
      setSelect: [
        (u) => {
          const { left, width } = u.select;
          if (width > 4) onZoom(left, left + width);
          u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        },
      ],
    },
  };
}

/** All values of the chart. */
export function ChartTable({ answer, measure, label, grain, tz, isCompared }: Series) {
  const last = lastComplete(answer);
  const rows = answer.data.map((row, at) => ({ row, isComplete: at <= last })).reverse();
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={`${label} as a table`}>
      <table class="values">
        <thead>
          <tr>
            <th scope="col">Time</th>
            <th scope="col" class="figure">{label}</th>
            {isCompared && <th scope="col" class="figure">Before</th>}
            {isCompared && <th scope="col" class="figure">Change</th>}
          </tr>
        </thead>
        <tbody>
          {rows.map(({ row, isComplete }) => (
            <tr key={row.time}>
              <th scope="row">
                {when(row, grain, tz)} {isComplete ? "" : <span class="small">not complete yet</span>}
              </th>
              <td class="figure">{format.number(figure(row, measure))}</td>
              {isCompared && <td class="figure">{format.number(row.compare?.[measure])}</td>}
              {isCompared && (
                <td class="figure">
                  <Change change={row.change?.[measure]} />
                </td>
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
