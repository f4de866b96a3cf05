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
    setDone((await copied(lines.join("\n"))) ? "Copied" : "Copying failed");
    setTimeout(() => setDone(""), 2500);
  };
  return (
    <section class="panel empty" aria-label="No events yet">
      <h1>Send your first event</h1>
      <p>
        No events have been counted yet. Run these two commands; the numbers appear here automatically after some seconds.
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
        This address accepts events if it is the front port of <code>./dev up</code> or a gateway. Otherwise, use the
        address of the edge, the service that receives events.
      </p>
    </section>
  );
}
