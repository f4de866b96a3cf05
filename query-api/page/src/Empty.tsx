// Nothing was ever counted: how to send the first event.

import { useState } from "preact/hooks";

import { copied } from "./parts";

export function Empty() {
  const at = location.origin;
  // Two users, so that every panel has something to say.
  const lines = [
    `curl ${at}/v1/events -d '{"event":"signup","user_id":"ann","country":"DE","device_os":"ios"}'`,
    `curl ${at}/v1/events -d '{"event":"view","user_id":"bob","country":"US","device_os":"android"}'`,
  ];
  const [done, setDone] = useState("");
  const copy = async () => {
    setDone((await copied(lines.join("\n"))) ? "Copied" : "Cannot copy here");
    setTimeout(() => setDone(""), 2500);
  };
  return (
    <section class="panel empty" aria-label="No events yet">
      <h1>Send your first event</h1>
      <p>
        Nothing has been counted yet. Run these two lines; the numbers appear here by themselves, some seconds later.
      </p>
      <div class="code">
        <pre>
          {lines.map((line) => (
            <span key={line}>{line}</span>
          ))}
        </pre>
        <button type="button" class="button" onClick={copy}>
          {done || "Copy"}
        </button>
      </div>
      <p class="small">
        The address takes writes if it is the front port of <code>./dev up</code> or a gateway; otherwise use that of the
        edge.
      </p>
    </section>
  );
}
