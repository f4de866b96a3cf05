// Keys, and the dialog that lists them.

import { useEffect, useRef } from "preact/hooks";

import { IN_BAR, type State } from "./state";

const KEYS: [string, string][] = [
  ["1 – 5", "time range: last hour, 24 hours, 7, 30 or 90 days"],
  ["e, u", "show events or users"],
  ["c", "turn the comparison on or off"],
  ["f", "add a filter"],
  ["x", "remove all filters"],
  ["b", "show or hide the table below the chart"],
  ["← →, Home, End", "move along the chart while it has the focus"],
  ["t", "colours: system, light or dark"],
  ["k", "kiosk mode: only the numbers, large"],
  ["?", "show this list"],
  ["Esc", "close a dialog or menu; leave kiosk mode"],
];

export function Help({ close }: { close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} onClose={close} aria-labelledby="help-title">
      <h2 id="help-title">Keyboard shortcuts</h2>
      <dl class="keys">
        {KEYS.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <p class="small">
        Click a value in a list to filter by it. Drag across the chart to zoom in. The address of the page contains the
        view, so a copied link shows others the same view, without your key.
      </p>
      <button type="button" class="primary" onClick={() => dialog.current?.close()}>
        Close
      </button>
    </dialog>
  );
}

interface Shortcuts {
  state: State;
  change: (changes: Partial<State>) => void;
  setHelp: (isOpen: boolean) => void;
  theme: () => void;
}

export function useShortcuts({ state, change, setHelp, theme }: Shortcuts): void {
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      const isTyping = /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName);
      if (isTyping || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
      const preset = IN_BAR[Number(event.key) - 1];
      if (preset !== undefined) return change({ range: preset.name, from: "", to: "", grain: "" });
      const actions: Record<string, () => void> = {
        e: () => change({ measure: "events" }),
        u: () => change({ measure: "users" }),
        c: () => change({ compare: state.compare === "none" ? "previous" : "none" }),
        f: () => document.querySelector<HTMLButtonElement>(".new-filter > button")?.click(),
        x: () => change({ filters: [] }),
        b: () => change({ table: !state.table }),
        t: theme,
        k: () => change({ kiosk: !state.kiosk }),
        Escape: () => change({ kiosk: false }),
        "?": () => setHelp(true),
      };
      const action = actions[event.key];
      if (action === undefined) return;
      if (event.key === "f") event.preventDefault();
      action();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  });
}
