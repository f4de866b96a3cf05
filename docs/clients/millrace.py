"""Sends events to Millrace: queues them, sends them in batches, retries, and counts each once.

Python 3.8 or later, without dependencies. Copy it into your project.

    millrace = Millrace("https://events.example.com")
    millrace.track("play", user_id="u1", level=3)
    millrace.close()
"""

import http.client
import json
import logging
import random
import threading
import time
import traceback
import urllib.error
import urllib.request
import uuid
from collections import deque

# After these answers the same events are sent again; also after a lost answer, and after a 400 `aborted`.
RETRIED = (408, 429, 500, 502, 503, 504)
# Of one request, far below the server's limit.
MAX_BYTES = 1_000_000


def warn(report):
    """Says which events were refused, unless there is an `on_report`."""
    if "code" in report:
        logging.getLogger("millrace").warning("events refused: %s: %s", report["code"], report.get("hint"))
    elif report.get("errors"):
        logging.getLogger("millrace").warning("events rejected: %s", report["errors"])


class Millrace:
    """A queue of events and the thread that sends them."""

    def __init__(self, url, key=None, max_events=500, max_queue=10_000, interval=1.0, on_report=None):
        self.url = f"{url}/v1/events"
        self.headers = {"Content-Type": "application/x-ndjson"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"
        self.max_events, self.max_queue, self.interval = max_events, max_queue, interval
        self.on_report = on_report or warn
        # accepted, rejected: events that the server has answered; dropped: those for which the queue had no room, or
        # that came after `close`.
        self.counts = {"accepted": 0, "rejected": 0, "dropped": 0}
        self.queue, self.closed = deque(), False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def track(self, event, **fields):
        """Queues an event. Its identity and time are made here, once, so that it counts once however often it is sent."""
        made = {"event_id": str(uuid.uuid4()), "client_time": int(time.time() * 1000), **fields, "event": event}
        line = json.dumps(made).encode()
        with self.changed:
            if self.closed or len(self.queue) >= self.max_queue:
                self.counts["dropped"] += 1
                return
            self.queue.append(line)
            self.changed.notify()

    def close(self, timeout=30):
        """Sends what is queued, for `timeout` seconds at most. Returns how many events were not sent."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.thread.join(timeout)
        return len(self.queue)

    def _run(self):
        most, attempt = self.max_events, 0
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.queue or self.closed)
                if not self.queue:
                    return
                if attempt == 0 and len(self.queue) < most and not self.closed:
                    self.changed.wait_for(lambda: len(self.queue) >= most or self.closed, self.interval)
                lines = self._batch(most)
            status, report, retry_after = self._post(b"\n".join(lines))
            if status is None or status in RETRIED or report.get("code") == "aborted":
                # What the server says, else 0.25 s, 0.5 s, … 30 s, each ± half. `close` tries at once.
                pause = retry_after or min(30, 0.25 * 2 ** min(attempt, 7)) * random.uniform(0.5, 1.5)
                attempt += 1
                was_closed = self.closed
                with self.changed:
                    self.changed.wait_for(lambda: self.closed and not was_closed, pause)
                continue
            attempt = 0
            if status == 413 and len(lines) > 1:
                most = (len(lines) + 1) // 2
                continue
            most = min(self.max_events, 2 * most)
            with self.changed:
                for _ in lines:
                    self.queue.popleft()
            self.counts["accepted"] += report.get("accepted", 0)
            self.counts["rejected"] += report.get("rejected", 0 if status < 300 else len(lines))
            try:
                self.on_report(report)  # errors, warnings, or a problem with `code` and `hint`
            except Exception:
                traceback.print_exc()

    def _batch(self, most):
        """The oldest lines, as many as one request takes."""
        lines, size = [], 0
        for line in self.queue:
            size += len(line) + 1
            if len(lines) == most or (lines and size > MAX_BYTES):
                break
            lines.append(line)
        return lines

    def _post(self, body):
        """Status, report and Retry-After of one attempt; no status if there was no whole answer."""
        request = urllib.request.Request(self.url, body, self.headers)
        try:
            try:
                answer = urllib.request.urlopen(request, timeout=20)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                text, retry_after = answer.read(), answer.headers.get("Retry-After", "")
        except (OSError, http.client.HTTPException):
            return None, {}, None
        try:
            report = json.loads(text)
        except ValueError:
            report = {}
        report = report if isinstance(report, dict) else {}
        return answer.status, report, int(retry_after) if retry_after.isdigit() else None
