// How numbers and times are written.

import type { Grain } from "./state";

const exact = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** All digits, in groups; a dash for what is not known. */
export function number(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : exact.format(value);
}

/** Few digits, for axes. */
export function short(value: number): string {
  return compact.format(value);
}

/** A share of 1 as percent. */
export function percent(share: number): string {
  const percent = share * 100;
  return `${percent < 10 ? percent.toFixed(1) : percent.toFixed(0)} %`;
}

/** Whether a change is shown as none: below a twentieth of a percent. */
export function isNone(change: number): boolean {
  return Math.abs(change) < 0.0005;
}

/** A change as signed percent. */
export function change(change: number): string {
  if (isNone(change)) return "0 %";
  const percent = Math.abs(change * 100);
  const digits = percent >= 1000 ? compact.format(percent) : percent.toFixed(percent < 9.95 ? 1 : 0);
  return `${change < 0 ? "−" : "+"}${digits} %`;
}

/** An age in words: seconds up to two minutes, then minutes, hours, days. */
export function age(millis: number): string {
  const seconds = Math.max(0, Math.round(millis / 1000));
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.round(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.round(hours / 24)} days`;
}

const formats = new Map<string, Intl.DateTimeFormat>();

function format(tz: string, options: Intl.DateTimeFormatOptions, millis: number): string {
  const key = tz + JSON.stringify(options);
  let format = formats.get(key);
  if (format === undefined) {
    format = new Intl.DateTimeFormat("en-GB", { timeZone: tz, ...options });
    formats.set(key, format);
  }
  return format.format(millis);
}

const CLOCK = { hour: "2-digit", minute: "2-digit" } as const;
const DATE = { day: "numeric", month: "short" } as const;

export const clock = (millis: number, tz: string): string => format(tz, CLOCK, millis);

export const clockSeconds = (millis: number, tz: string): string =>
  format(tz, { ...CLOCK, second: "2-digit" }, millis);

export const day = (millis: number, tz: string): string => format(tz, DATE, millis);

export const dayAndClock = (millis: number, tz: string): string => `${day(millis, tz)}, ${clock(millis, tz)}`;

/** A bucket in words. */
export function bucket(millis: number, grain: Grain, tz: string): string {
  switch (grain) {
    case "minute":
    case "15m":
    case "hour":
      return format(tz, { weekday: "short", ...DATE, ...CLOCK }, millis);
    case "day":
      return format(tz, { weekday: "short", ...DATE, year: "numeric" }, millis);
    case "week":
      return `Week of ${format(tz, { ...DATE, year: "numeric" }, millis)}`;
    case "month":
      return format(tz, { month: "long", year: "numeric" }, millis);
  }
}

/** The mark of an axis at a moment, for marks that are `step` milliseconds apart. */
export function refreshCount(millis: number, step: number, tz: string): string {
  const isMidnight = clock(millis, tz) === "00:00";
  return step >= 20 * 3_600_000 || isMidnight ? day(millis, tz) : clock(millis, tz);
}

const regions = new Intl.DisplayNames("en", { type: "region", fallback: "code" });

/** The value of a dimension for people; a country has its name. */
export function label(dimension: string, value: string): string {
  if (value === "") return "(none)";
  if (dimension !== "country" || !/^[A-Z]{2}$/.test(value)) return value;
  try {
    return regions.of(value) ?? value;
  } catch {
    return value;
  }
}
