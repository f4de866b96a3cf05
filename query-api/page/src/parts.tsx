// Small parts that several panels have.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { type Refusal, download, key } from "./api";
import { change as changeText, isNone } from "./format";
import { csvPath, curl } from "./queries";

/** A change against the comparison: arrow, sign and colour say the same. */
export function Change({ change, then }: { change: number | null | undefined; then?: string }) {
  if (change === null || change === undefined) return <span class="change none">–</span>;
  const kind = isNone(change) ? "same" : change > 0 ? "up" : "down";
  return (
    <span class={`change ${kind}`} title={then}>
      {changeText(change)}
    </span>
  );
}

/** What a panel shows instead of numbers. */
export function Refused({ refusal }: { refusal: Refusal }) {
  const notKept = refusal.code === "not_covered";
  return (
    <div class="refused">
      <p>{notKept ? "Not counted this way" : refusal.code === "not_found" ? "Not on this server" : "No answer"}</p>
      <p class="small">{notKept ? whatIsMissing(refusal.message) : refusal.message}</p>
    </div>
  );
}

/** The detail of the API names each rollup in turn; the first clause says what is missing. */
function whatIsMissing(detail: string): string {
  const [first] = detail.split("; ");
  return `${first ?? detail}. To count it, declare a rollup that has it.`.replace(/\.\.+/g, ".");
}

/** A menu behind a button: closes on Escape, on a click elsewhere and on a choice. */
export function Menu({
  label,
  text,
  children,
  class: kind = "",
}: {
  label: string;
  text?: ComponentChildren;
  children: (close: () => void) => ComponentChildren;
  class?: string;
}) {
  const [isOpen, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const button = useRef<HTMLButtonElement>(null);
  useEffect(() => {
    if (!isOpen) return;
    const outside = (event: Event) => {
      if (!box.current?.contains(event.target as Node)) setOpen(false);
    };
    box.current?.querySelector<HTMLElement>(".popover :is(button, input, select)")?.focus();
    document.addEventListener("pointerdown", outside);
    document.addEventListener("focusin", outside);
    return () => {
      document.removeEventListener("pointerdown", outside);
      document.removeEventListener("focusin", outside);
    };
  }, [isOpen]);
  const close = () => {
    setOpen(false);
    button.current?.focus();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Escape" && isOpen) {
      event.stopPropagation();
      close();
    }
  };
  return (
    <div class={`menu ${kind}`} ref={box} onKeyDown={onKeyDown}>
      <button
        type="button"
        ref={button}
        class={text === undefined ? "icon" : "button"}
        aria-label={text === undefined ? label : undefined}
        title={label}
        aria-expanded={isOpen}
        onClick={() => setOpen(!isOpen)}
      >
        {text ?? <Dots />}
      </button>
      {isOpen && <div class="popover">{children(close)}</div>}
    </div>
  );
}

function Dots() {
  return (
    <svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
      <circle cx="3" cy="8" r="1.4" />
      <circle cx="8" cy="8" r="1.4" />
      <circle cx="13" cy="8" r="1.4" />
    </svg>
  );
}

/** What can be done with the answer behind a panel. */
export function Actions({ path, name, csv = true }: { path: string; name: string; csv?: boolean }) {
  const [done, setDone] = useState("");
  const say = (text: string) => {
    setDone(text);
    setTimeout(() => setDone(""), 2500);
  };
  const copy = async (close: () => void) => {
    close();
    say((await copied(curl(location.origin, path, key !== undefined))) ? "Copied" : "Copying failed");
  };
  const save = async (close: () => void) => {
    close();
    try {
      const file = await download(csvPath(path));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(file);
      link.download = `${name.toLowerCase().replace(/[^a-z0-9]+/g, "-")}.csv`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
      say("Saved");
    } catch (error) {
      say(error instanceof Error ? error.message : "No answer");
    }
  };
  return (
    <div class="actions">
      <span class="done" role="status">
        {done}
      </span>
      <Menu label={`${name}: copy or download`}>
        {(close) => (
          <>
            <button type="button" class="item" onClick={() => copy(close)}>
              Copy as curl
            </button>
            {csv && (
              <button type="button" class="item" onClick={() => save(close)}>
                Download CSV
              </button>
            )}
          </>
        )}
      </Menu>
    </div>
  );
}

/** Copies a text. Pages over plain HTTP from another machine have only the old clipboard API. */
export async function copied(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** Grey lines where a table will be, as high as the table. */
export function Skeleton({ rows }: { rows: number }) {
  return (
    <div class="skeleton" aria-hidden="true">
      {Array.from({ length: rows }, (_, at) => (
        <span key={at} style={{ width: `${88 - ((at * 37) % 50)}%` }} />
      ))}
    </div>
  );
}
