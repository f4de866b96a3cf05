"""The overlay dev runs by itself: what it configures, with a real Kafka, a real ClickHouse and the services on this machine.

All start at once, as after one apply on an empty cluster. The images are not tried here.
"""

import time
from contextlib import ExitStack

import pytest
from processes import ask, wait_for
from rendered import K8S, render
from stack import Stack

DEADLINE = 240
EVENTS = b'{"event":"click","user_id":"ann"}\n{"event":"impression","user_id":"bob"}\n'


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    with ExitStack() as stack:
        started = Stack(tmp_path_factory.mktemp("dev"), render(K8S / "overlays/dev"), stack)
        # The services first: they wait for what is missing.
        started.start_services()
        started.start_clickhouse()
        started.start_kafka()
        yield started
        started.end_services()


def test_the_migration_succeeds_with_the_rights_of_its_user(dev):
    assert dev.services["migrate"].wait(DEADLINE) == 0, (dev.folder / "migrate.log").read_text()


def test_the_services_become_ready_without_a_restart(dev):
    wait_for("all are ready", dev.are_all_ready, DEADLINE)
    assert {name for name, process in dev.services.items() if process.poll() is not None} == {"migrate"}


def test_an_event_is_stored_and_counted(dev):
    wait_for("all are ready", dev.are_all_ready, DEADLINE)
    status, report = ask(dev.ports["ingest"][0], "/v1/events", EVENTS)
    assert status == 200 and '"accepted":2' in report, report
    path = f"/analytics?timestamp={time.time_ns() // 1_000_000}"
    counted = (200, "unique_users,2\nclicks,1\nimpressions,1\n")
    wait_for("both events are counted", lambda: ask(dev.ports["query-api"][0], path) == counted, DEADLINE)
