// The strip for operators: whether what was sent is counted, how far behind that is, and what the last audit found.

import { useAnswer } from "./answers";
import { useAgeOf } from "./freshness";
import * as format from "./format";
import { Actions } from "./parts";

interface Pipeline {
  data: {
    lines: { received: number; stored: number; rejected: number; duplicates: number; rejected_samples: number };
    partitions: { count: number; slowest: number | null };
    audit: {
      at: string;
      sound: boolean;
      tables: number;
      partly_compared: number;
      missing: number;
      duplicate: number;
      offsets_in_gaps: number;
    } | null;
  };
  meta: { as_of: string | null; stale: boolean; window: { to: string } };
}

const PATH = "/v1/pipeline";
/** Above this, one partition of Kafka is probably what holds the others back. */
const FAR_BEHIND = 60_000;

export function Strip({ refreshCount }: { refreshCount: number }) {
  const { body, refusal, trueAt } = useAnswer<Pipeline, null>(PATH, refreshCount, null);
  const lag = useAgeOf(trueAt);
  // An older server has no such path, and a key may not be an operator's any more.
  if (body === undefined && (refusal?.status === 404 || refusal?.status === 403)) return null;
  const { lines, partitions, audit } = body?.data ?? {};
  const isFarBehind = lag !== undefined && lag > FAR_BEHIND;
  return (
    <section class="panel strip" aria-label="Pipeline">
      <header>
        <h2>
          Pipeline <span class="small">last 24 hours, all tenants</span>
        </h2>
        <Actions path={PATH} name="Pipeline" csv={false} />
      </header>
      <dl>
        <Figure id="stored" name="Events stored" value={lines && format.number(lines.stored)}>
          {lines && `of ${format.number(lines.received)} received`}
        </Figure>
        <Figure id="duplicates" name="Repeats left out" value={lines && format.number(lines.duplicates)}>
          {lines && "sent again with the same id"}
        </Figure>
        <Figure
          id="rejected"
          name="Rejected"
          value={lines && format.number(lines.rejected)}
          level={lines && lines.rejected > 0 ? "late" : undefined}
          title="Lines that the edge accepted but that could not be stored as events. Lines that the edge rejects are reported to their sender at once; the edge keeps samples of them, at most ten a second."
        >
          {lines && `at the edge: ${samples(lines.rejected_samples)}`}
        </Figure>
        <Figure
          id="lag"
          name="Lag"
          value={body && (lag === undefined ? "–" : format.age(lag))}
          level={isFarBehind ? "late" : undefined}
        >
          {partitions && lagOf(partitions, isFarBehind)}
        </Figure>
        <Figure
          id="audit"
          name="Last audit"
          value={body && (audit ? (audit.sound ? "OK" : "Errors") : "None yet")}
          level={audit ? (audit.sound ? "live" : "stopped") : undefined}
        >
          {body && (audit ? auditOf(audit, body.meta.window.to) : "audits run every ten minutes")}
        </Figure>
      </dl>
    </section>
  );
}

function samples(count: number): string {
  return count === 1 ? "1 sample" : `${format.number(count)} samples`;
}

function lagOf({ count, slowest }: Pipeline["data"]["partitions"], isFarBehind: boolean): string {
  if (slowest === null) return "a partition has not reported yet";
  return isFarBehind ? `partition ${slowest} is the slowest of ${count}` : `all ${count} partitions`;
}

function auditOf(audit: NonNullable<Pipeline["data"]["audit"]>, now: string): string {
  const ago = `${format.age(Date.parse(now) - Date.parse(audit.at))} ago`;
  if (audit.sound) return `${audit.tables} tables, ${ago}`;
  const wrong = [
    [audit.missing, "missing"],
    [audit.duplicate, "duplicate"],
    [audit.offsets_in_gaps, "offsets in no table"],
  ] as const;
  const found = wrong.filter(([count]) => count > 0).map(([count, what]) => `${format.number(count)} ${what}`);
  return `${found.join(", ")}, ${ago}`;
}

interface FigureProps {
  id: string;
  name: string;
  /** None before the first answer. */
  value: string | undefined;
  level?: "live" | "late" | "stopped" | undefined;
  title?: string;
  children: preact.ComponentChildren;
}

function Figure({ id, name, value, level, title, children }: FigureProps) {
  return (
    <div data-figure={id} class={level ?? ""} title={title}>
      <dt class="small">{name}</dt>
      <dd class="number">
        {level && <span class="dot" aria-hidden="true" />}
        {value ?? "\u2007"}
      </dd>
      <dd class="small">{children || "\u2007"}</dd>
    </div>
  );
}
