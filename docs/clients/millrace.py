"""Sends events to Millrace: queues them, sends them in batches, retries, and counts each once.

Python 3.8 or later, without dependencies. Copy it into your project.

    millrace = Millrace("https://events.example.com")
    millrace.track("play", user_id="u1", level=3)
    millrace.close()
"""

import json
import random
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import deque

# After these the same events may be sent again; after a lost answer too.
RETRIED = (408, 429, 500, 502, 503, 504)


class Millrace:
    """A queue of events and the thread that sends them."""

    def __init__(self, url, key=None, max_events=500, max_queue=10_000, interval=1.0, on_report=None):
        self.url = f"{url}/v1/events"
        self.headers = {"Content-Type": "application/x-ndjson"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"
        self.max_events, self.max_queue, self.interval = max_events, max_queue, interval
        self.on_report = on_report or (lambda report: None)
        # accepted, rejected: events that the server has answered; dropped: those for which the queue had no room.
        self.counts = {"accepted": 0, "rejected": 0, "dropped": 0}
        self.queue, self.closed = deque(), False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def track(self, event, **fields):
        """Queues an event. Its identity and time are made here, once, so that it counts once however often it is sent."""
        made = {"event_id": str(uuid.uuid4()), "client_time": int(time.time() * 1000), **fields, "event": event}
        with self.changed:
            if len(self.queue) >= self.max_queue:
                self.counts["dropped"] += 1
                return
            self.queue.append(json.dumps(made))
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
                if len(self.queue) < most and not self.closed:
                    self.changed.wait_for(lambda: len(self.queue) >= most or self.closed, self.interval)
                lines = [self.queue[at] for at in range(min(most, len(self.queue)))]
            status, report, retry_after = self._post("\n".join(lines))
            if status is None or status in RETRIED:
                # What the server says, else 0.25 s, 0.5 s, … 30 s, each ± half.
                time.sleep(retry_after or min(30, 0.25 * 2**attempt) * random.uniform(0.5, 1.5))
                attempt += 1
                continue
            attempt = 0
            if status == 413 and len(lines) > 1:
                most = (len(lines) + 1) // 2
                continue
            with self.changed:
                for _ in lines:
                    self.queue.popleft()
            self.counts["accepted"] += report.get("accepted", 0)
            self.counts["rejected"] += report.get("rejected", 0 if status < 300 else len(lines))
            self.on_report(report)  # errors, warnings, or a problem with `code` and `hint`

    def _post(self, body):
        """Status, report and Retry-After of one attempt; no status if there was no answer."""
        request = urllib.request.Request(self.url, body.encode(), self.headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read() or b"{}"), None
        except urllib.error.HTTPError as error:
            retry_after = error.headers.get("Retry-After", "")
            try:
                report = json.loads(error.read())
            except ValueError:
                report = {}
            return error.code, report, int(retry_after) if retry_after.isdigit() else None
        except (OSError, ValueError):
            return None, {}, None
