// Sends events to Millrace: queues them, sends them in batches, retries, and counts each once.
// An ES module without dependencies, for browsers and Node 18 or later. Copy it into your project.
//
//   const millrace = new Millrace("https://events.example.com");
//   millrace.track("play", { user_id: "u1", level: 3 });
//   await millrace.flush();

// After these the same events may be sent again; after a lost answer too.
const RETRIED = [408, 429, 500, 502, 503, 504];
// Browsers send no larger body once a page is closed.
const MAX_BYTES = 60_000;

export class Millrace {
  #queue = []; // lines, the oldest first
  #flushing = null;
  #timer = null;

  // accepted, rejected: events that the server has answered; dropped: the oldest, while the queue was full.
  counts = { accepted: 0, rejected: 0, dropped: 0 };

  constructor(url, { key, maxEvents = 500, maxQueue = 10_000, interval = 1000, onReport = () => {} } = {}) {
    this.url = `${url}/v1/events${key ? `?key=${encodeURIComponent(key)}` : ""}`;
    Object.assign(this, { maxEvents, maxQueue, interval, onReport });
    globalThis.document?.addEventListener("visibilitychange", () => document.hidden && this.beacon());
  }

  // Queues an event. Its identity and time are made here, once, so that it counts once however often it is sent.
  track(event, fields = {}) {
    const line = JSON.stringify({ event_id: crypto.randomUUID(), client_time: Date.now(), ...fields, event });
    if (this.#queue.push(line) > this.maxQueue) {
      this.#queue.shift();
      this.counts.dropped++;
    }
    this.#timer ??= setTimeout(() => this.flush(), this.interval);
    this.#timer.unref?.(); // in Node: keeps no process alive
  }

  // Sends all that is queued; ends when it is answered. Retries for as long as it takes.
  flush() {
    this.#flushing ??= this.#sendAll().finally(() => (this.#flushing = null));
    return this.#flushing;
  }

  // Hands what is queued to the browser, as a page closes. What it does not take stays queued.
  beacon() {
    while (this.#queue.length > 0 && !this.#flushing) {
      const lines = this.#batch(this.maxEvents);
      if (!navigator.sendBeacon(this.url, lines.join("\n"))) return;
      this.#queue.splice(0, lines.length);
    }
  }

  async #sendAll() {
    clearTimeout(this.#timer);
    this.#timer = null;
    let most = this.maxEvents;
    for (let attempt = 0; this.#queue.length > 0; ) {
      const lines = this.#batch(most);
      const answer = await this.#post(lines.join("\n"));
      if (answer === null || RETRIED.includes(answer.status)) {
        await new Promise((resolve) => setTimeout(resolve, wait(attempt++, answer?.headers.get("retry-after"))));
        continue;
      }
      if (answer.status === 413 && lines.length > 1) {
        most = Math.ceil(lines.length / 2);
        continue;
      }
      attempt = 0;
      // Not a splice: a full queue may have lost its oldest lines meanwhile.
      const sent = new Set(lines);
      this.#queue = this.#queue.filter((line) => !sent.has(line));
      const report = await answer.json().catch(() => ({}));
      this.counts.accepted += report.accepted ?? 0;
      this.counts.rejected += report.rejected ?? (answer.ok ? 0 : lines.length);
      this.onReport(report); // errors, warnings, or a problem with `code` and `hint`
    }
  }

  #post(body) {
    const keepalive = body.length < MAX_BYTES; // goes on when the page is closed
    const options = { method: "POST", body, keepalive, signal: AbortSignal.timeout(20_000) };
    return fetch(this.url, options).catch(() => null);
  }

  #batch(most) {
    const lines = [];
    for (let bytes = 0; lines.length < Math.min(most, this.#queue.length); ) {
      const line = this.#queue[lines.length];
      bytes += new TextEncoder().encode(line).length + 1;
      if (lines.length > 0 && bytes > MAX_BYTES) break;
      lines.push(line);
    }
    return lines;
  }
}

// Milliseconds until the next attempt: what the server says, else 0.25 s, 0.5 s, … 30 s, each ± half.
function wait(attempt, retryAfter) {
  const told = Number(retryAfter) * 1000;
  return told > 0 ? told : Math.min(30_000, 250 * 2 ** attempt) * (0.5 + Math.random());
}
