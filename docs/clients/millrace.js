// Sends events to Millrace: queues them, sends them in batches, retries, and counts each once.
// An ES module without dependencies, for browsers and Node 20 or later. Copy it into your project.
//
//   const millrace = new Millrace("https://events.example.com");
//   millrace.track("play", { user_id: "u1", level: 3 });
//   await millrace.flush();

// After these answers the same events are sent again; also after a lost answer, and after a 400 `aborted`.
const RETRIED = [408, 429, 500, 502, 503, 504];
// Browsers send no larger body once a page is closed.
const MAX_BYTES = 60_000;
const bytes = (text) => new TextEncoder().encode(text).length;

export class Millrace {
  #queue = []; // lines, the oldest first
  #flushing = null;
  #timer = null;

  // accepted, rejected: events that the server has answered; dropped: the oldest, while the queue was full.
  counts = { accepted: 0, rejected: 0, dropped: 0 };

  constructor(url, { key, maxEvents = 500, maxQueue = 10_000, interval = 1000, onReport = warn } = {}) {
    this.url = `${url}/v1/events${key ? `?key=${encodeURIComponent(key)}` : ""}`;
    Object.assign(this, { maxEvents, maxQueue, interval, onReport });
    globalThis.document?.addEventListener("visibilitychange", () => document.hidden && this.beacon());
  }

  // Queues an event. Its identity and time are made here, once, so that it counts once however often it is sent.
  track(event, fields = {}) {
    const line = JSON.stringify({ event_id: uuid(), client_time: Date.now(), ...fields, event });
    if (this.#queue.push(line) > this.maxQueue) {
      this.#queue.shift();
      this.counts.dropped++;
    }
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.flush().catch(console.error);
    }, this.interval);
    this.#timer.unref?.(); // in Node: keeps no process alive
  }

  // Sends all that is queued; ends when it is answered. Retries for as long as it takes.
  flush() {
    this.#flushing ??= this.#sendAll().finally(() => (this.#flushing = null));
    return this.#flushing;
  }

  // Hands a copy of what is queued to the browser, as a page may be closed. It stays queued: if the page is not
  // closed, it is sent again, and counts once.
  beacon() {
    for (let from = 0; from < this.#queue.length; ) {
      const lines = this.#batch(from, this.maxEvents);
      if (!navigator.sendBeacon(this.url, lines.join("\n"))) return;
      from += lines.length;
    }
  }

  async #sendAll() {
    let [most, attempt] = [this.maxEvents, 0];
    while (this.#queue.length > 0) {
      const lines = this.#batch(0, most);
      const answer = await this.#post(lines.join("\n"));
      const report = (await answer?.json().catch(() => null)) ?? {};
      if (answer === null || RETRIED.includes(answer.status) || report.code === "aborted") {
        await new Promise((resolve) => setTimeout(resolve, wait(attempt++, answer?.headers.get("retry-after"))));
        continue;
      }
      attempt = 0;
      if (answer.status === 413 && lines.length > 1) {
        most = Math.ceil(lines.length / 2);
        continue;
      }
      most = Math.min(this.maxEvents, 2 * most);
      // Not a splice: a full queue may have lost its oldest lines meanwhile.
      const sent = new Set(lines);
      this.#queue = this.#queue.filter((line) => !sent.has(line));
      this.counts.accepted += report.accepted ?? 0;
      this.counts.rejected += report.rejected ?? (answer.ok ? 0 : lines.length);
      this.onReport(report); // errors, warnings, or a problem with `code` and `hint`
    }
  }

  // The answer, or null if there was none.
  async #post(body) {
    const post = (keepalive) =>
      fetch(this.url, { method: "POST", body, keepalive, signal: AbortSignal.timeout(20_000) }).catch(() => null);
    // What is kept alive goes on when the page is closed; browsers limit it, over all requests together.
    return (bytes(body) <= MAX_BYTES ? await post(true) : null) ?? post(false);
  }

  #batch(from, most) {
    const lines = [];
    for (let size = 0; lines.length < most && from + lines.length < this.#queue.length; ) {
      const line = this.#queue[from + lines.length];
      size += bytes(line) + 1;
      if (lines.length > 0 && size > MAX_BYTES) break;
      lines.push(line);
    }
    return lines;
  }
}

// Says which events were refused, unless the page has an `onReport` of its own.
function warn(report) {
  if (report.code) console.warn(`millrace: events refused: ${report.code}: ${report.hint}`);
  else if (report.errors?.length) console.warn("millrace: events rejected:", JSON.stringify(report.errors));
}

// Pages without TLS have no crypto.randomUUID.
function uuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const random = crypto.getRandomValues(new Uint8Array(16));
  random[6] = (random[6] & 0x0f) | 0x40;
  random[8] = (random[8] & 0x3f) | 0x80;
  const hex = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

// Milliseconds until the next attempt: what the server says, else 0.25 s, 0.5 s, … 30 s, each ± half.
function wait(attempt, retryAfter) {
  const asked = Number(retryAfter) * 1000;
  return asked > 0 ? asked : Math.min(30_000, 250 * 2 ** Math.min(attempt, 7)) * (0.5 + Math.random());
}
