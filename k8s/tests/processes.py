"""Starts programs on free ports of this machine, waits for what they answer, and ends them."""

import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

STOP = 30


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def alone(admin):
    """Variables of a service that answers probes on this port, and that has no other server to call."""
    return {
        "ADMIN_ADDR": f"127.0.0.1:{admin}",
        "LISTEN_ADDR": f"127.0.0.1:{free_port()}",
        # Nothing listens there: a service starts without Kafka and ClickHouse.
        "KAFKA_BROKERS": "127.0.0.1:1",
        "CLICKHOUSE_URL": "http://127.0.0.1:1",
    }


@contextmanager
def running(command, log, **options):
    """A process that writes into the file `log` and is ended with the context."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
        try:
            yield process
        finally:
            end(process)


def end(process):
    # ClickHouse ends with its input.
    if process.stdin:
        process.stdin.close()
    else:
        process.terminate()
    try:
        process.wait(STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def ask(port, path, body=None):
    """The status and the text that a service answers; 0 if it does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data=body, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def wait_for(what, condition, deadline):
    """The first true value of the condition; fails with `what` and the last value at the deadline, in seconds."""
    until = time.monotonic() + deadline
    while not (value := condition()):
        assert time.monotonic() < until, f"{what}: not within {deadline} s; last: {value!r}"
        time.sleep(0.1)  # nothing signals when it answers
    return value
