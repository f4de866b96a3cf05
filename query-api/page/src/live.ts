// The stream of `/v1/live`, shared by all tabs of this browser: one tab reads it and tells the others.
// Where there is no stream, the page asks again every ten seconds while it is visible.

import { useEffect, useRef, useState } from "preact/hooks";

import { headers, key } from "./api";

/** What a message of the stream has, as far as the page uses it. */
export interface Live {
  /** Null where the rollups are not declared. */
  series?: { minutes: { time: string; events: number }[] } | null;
  /** Users of the last minutes; null where the rollup is not declared. */
  active?: { minutes_5: number; minutes_30: number } | null;
}

/** Time between two refreshes of the panels. */
const REFRESH = 10_000;
/** The same while the stream says that nothing new was counted: events of past days are not in the stream. */
const IDLE = 30_000;
/** A stream that is silent for this long is considered dead: the server sends a heartbeat every 15 s. */
const SILENT = 45_000;
/** Pause before a stream that ended is opened again. */
const AGAIN = 5_000;

/** The stream is of one key, so tabs with different keys share nothing. */
const channelName = `millrace-live-${key ?? ""}`;

export function useLive(): Live | undefined {
  const [live, setLive] = useState<Live>();
  useEffect(() => {
    const stop = new AbortController();
    const channel = "BroadcastChannel" in window ? new BroadcastChannel(channelName) : undefined;
    const receive = (message: Live) => setLive(message);
    channel?.addEventListener("message", (event: MessageEvent<Live>) => receive(event.data));
    const lead = () =>
      readForEver(stop.signal, (message) => {
        receive(message);
        channel?.postMessage(message);
      });
    // The lock is free as soon as the tab that holds it is closed. Pages of plain HTTP from another machine
    // have no locks; each of their tabs reads a stream of its own.
    if (channel !== undefined && "locks" in navigator) {
      navigator.locks.request(channelName, { signal: stop.signal }, lead).catch(() => undefined);
    } else {
      void lead();
    }
    return () => {
      stop.abort();
      channel?.close();
    };
  }, []);
  return live;
}

async function readForEver(stop: AbortSignal, receive: (message: Live) => void): Promise<void> {
  while (!stop.aborted) {
    const isThere = await readOnce(stop, receive).catch(() => true);
    // This server has no stream, or the key may not read it.
    if (!isThere) return;
    await new Promise((resolve) => setTimeout(resolve, AGAIN));
  }
}

/** Reads until the stream ends. Not an `EventSource`, which could not send the key. */
async function readOnce(stop: AbortSignal, receive: (message: Live) => void): Promise<boolean> {
  const silent = new AbortController();
  let timer = setTimeout(() => silent.abort(), SILENT);
  try {
    const response = await fetch("/v1/live", {
      headers: { accept: "text/event-stream", ...headers() },
      signal: AbortSignal.any([stop, silent.signal]),
    });
    if (!response.ok || response.body === null) return response.status >= 500 || response.status === 429;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return true;
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), SILENT);
      text += value.replace(/\r\n?/g, "\n");
      const messages = text.split("\n\n");
      text = messages.pop() ?? "";
      for (const message of messages) {
        const data = message
          .split("\n")
          .filter((line) => line.startsWith("data:"))
          .map((line) => line.slice(5))
          .join("\n");
        if (data) receive(JSON.parse(data) as Live);
      }
    }
  } finally {
    clearTimeout(timer);
  }
}

/** A number that grows whenever the panels must ask again. It does not grow while the page is hidden. */
export function useRefreshCount(live: Live | undefined): number {
  const [refreshCount, setRefreshCount] = useState(0);
  const seen = useRef("");
  const counted = JSON.stringify(live?.series ?? null);
  const isNew = useRef(true);
  isNew.current = live === undefined || counted !== seen.current;
  const latest = useRef(counted);
  latest.current = counted;
  useEffect(() => {
    let last = performance.now();
    const refresh = () => {
      const wait = isNew.current ? REFRESH : IDLE;
      if (document.visibilityState !== "visible" || performance.now() - last < wait) return;
      last = performance.now();
      seen.current = latest.current;
      setRefreshCount((count) => count + 1);
    };
    const timer = setInterval(refresh, 1000);
    document.addEventListener("visibilitychange", refresh);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", refresh);
    };
  }, []);
  return refreshCount;
}
