// The answers that panels show. A panel keeps its last answer until the next one is there, so that nothing
// jumps when it asks again.

import { useEffect, useId, useState } from "preact/hooks";

import { type Answer, Refusal, ask } from "./api";
import { forget, note } from "./freshness";

/** A row of `/v1/query`. */
export interface Row {
  time?: string;
  compare?: Record<string, number | null>;
  change?: Record<string, number | null>;
  [field: string]: unknown;
}

export interface Meta {
  as_of: string | null;
  stale: boolean;
  complete_until: string | null;
  exact: boolean;
  error?: Record<string, number | null>;
  rollups: string[];
  window: { from: string; to: string; tz: string };
  compare?: { from: string; to: string };
  truncated: boolean;
  empty?: string;
}

export interface QueryAnswer {
  data: Row[];
  meta: Meta;
}

export interface Panel<T, C> {
  /** The latest answer. */
  body: T | undefined;
  /** What the panel was about when the answer was asked for. */
  context: C;
  /** Why the latest request has no answer. */
  refusal: Refusal | undefined;
  /** Whether what is shown answers an earlier question. */
  isLoading: boolean;
  /** The moment, by the steady clock, that the latest answer is true for. */
  trueAt: number | undefined;
}

interface Held<T, C> {
  question: string;
  body: T | undefined;
  trueAt: number | undefined;
  context: C;
  refusal: Refusal | undefined;
}

/** Asks whenever the question or the refreshCount changes. Without a path there is no question. */
export function useAnswer<T, C>(
  path: string | undefined,
  refreshCount: number,
  context: C,
): Panel<T, C> {
  const id = useId();
  const question = path ?? "";
  const [held, setHeld] = useState<Held<T, C>>();
  useEffect(() => () => forget(id), [id]);
  useEffect(() => {
    if (path === undefined) return forget(id);
    const stop = new AbortController();
    ask<T>(path, stop.signal).then(
      ({ body, trueAt }: Answer<T>) => {
        if (stop.signal.aborted) return;
        const meta = (body as { meta?: { stale?: boolean } }).meta;
        note(id, trueAt, meta?.stale ?? false);
        setHeld({ question, body, trueAt, context, refusal: undefined });
      },
      (error: unknown) => {
        if (stop.signal.aborted) return;
        const refusal = error instanceof Refusal ? error : new Refusal(0, "unreadable", String(error), "");
        setHeld((held) => {
          // A refused question has no numbers. One that was answered before keeps them while the server does
          // not answer, and they grow older.
          const isKept = held?.question === question && (refusal.status === 0 || refusal.status === 429 || refusal.status >= 500);
          if (!isKept) forget(id);
          const { body, trueAt } = isKept ? held : { body: undefined, trueAt: undefined };
          return { question, body, trueAt, context, refusal };
        });
      },
    );
    return () => stop.abort();
  }, [question, refreshCount]);
  const none = { body: undefined, trueAt: undefined, context, refusal: undefined };
  if (path === undefined) return { ...none, isLoading: false };
  if (held === undefined) return { ...none, isLoading: true };
  if (held.question === question) return { ...held, isLoading: false };
  return { ...held, refusal: undefined, isLoading: true };
}

/** Like [`useAnswer`] for what does not change while the page is open; a server that has none gives none. */
export function useOnce<T>(path: string): T | undefined {
  const [body, setBody] = useState<T>();
  useEffect(() => {
    ask<T>(path).then(
      (answer) => setBody(answer.body),
      () => undefined,
    );
  }, [path]);
  return body;
}

/** A measure of a row. */
export function figure(row: Row | undefined, measure: string): number | null {
  const value = row?.[measure];
  return typeof value === "number" ? value : null;
}
