// How old the numbers on the screen are: the age of the oldest answer that is shown. It grows by a steady
// clock, so that neither a wrong clock here nor one at the server changes it.

import { useEffect, useState } from "preact/hooks";

export type Level = "live" | "late" | "stopped" | "unknown";

/** Above this, answers are late: even a page that refreshes every 30 s has missed a refresh. */
const LATE = 60_000;
/** Above this, the page says that it is not updating. */
const STOPPED = 120_000;

interface Shown {
  trueAt: number;
  isStale: boolean;
}

const shown = new Map<string, Shown>();

/** Notes the answer that a panel shows. */
export function note(panel: string, trueAt: number | undefined, isStale: boolean): void {
  if (trueAt === undefined) shown.delete(panel);
  else shown.set(panel, { trueAt, isStale });
}

/** A panel that is gone has no age. */
export function forget(panel: string): void {
  shown.delete(panel);
}

/** The age of what is shown, renewed each second; none before the first answer. */
export function useAge(): { age: number | undefined; level: Level } {
  const now = useNow();
  const all = [...shown.values()];
  if (all.length === 0) return { age: undefined, level: "unknown" };
  const age = Math.max(0, now - Math.min(...all.map((answer) => answer.trueAt)));
  const isLate = age > LATE || all.some((answer) => answer.isStale);
  return { age, level: age > STOPPED ? "stopped" : isLate ? "late" : "live" };
}

/** The age of one answer, renewed each second. */
export function useAgeOf(trueAt: number | undefined): number | undefined {
  const now = useNow();
  // An answer may be newer than the latest second.
  return trueAt === undefined ? undefined : Math.max(0, now - trueAt);
}

/** The steady clock, each second. */
function useNow(): number {
  const [now, setNow] = useState(() => performance.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(performance.now()), 1000);
    return () => clearInterval(timer);
  }, []);
  return now;
}
