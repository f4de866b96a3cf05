"""The images run as the pods of the overlays describe it: user, read-only root, no capabilities, seccomp, memory.

Only `./dev test --full` runs these tests, as root. The base is Debian's, not distroless: docs/kubernetes.md lists what only
a real cluster shows.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from container import Images, running
from processes import alone, ask, free_port, wait_for
from rendered import IMAGES, K8S, containers, label, render
from stack import Stack
from units import size

DEADLINE = 60

# The largest body that the edge takes, of 8,000 lines, and how many of them arrive at once and in all.
LINE = b'{"event":"play","user_id":"someone","text":"%s"}\n' % (b"x" * 1000)
LARGEST = LINE * 8_000
AT_ONCE, IN_ALL = 100, 300


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return Images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def prod():
    return render(K8S / "overlays/prod")


@pytest.fixture
def folder(tmp_path):
    # The user of the container writes here, and reaches it.
    for place in (tmp_path, *tmp_path.parents[:2]):
        place.chmod(0o755)
    spool = tmp_path / "spool"
    spool.mkdir()
    spool.chmod(0o777)
    return tmp_path


def pod_of(documents, service):
    (found,) = [(spec, container) for workload, spec, container in containers(documents) if label(workload) == service]
    return found


@pytest.mark.parametrize("service", IMAGES)
def test_a_service_runs_in_its_pod_and_stops_when_it_is_asked(images, prod, folder, service):
    spec, container = pod_of(prod, service)
    admin = free_port()
    own = alone(admin) | {"POLL_RESULTS_URL": "http://127.0.0.1:1", "DRAIN_DELAY": "0s"}
    with running(images, service, prod, spec, container, folder, **own) as started:
        wait_for(f"{service} answers", lambda: started.is_over() or ask(admin, "/healthz")[0] == 200, DEADLINE)
        assert not started.is_over(), started.log.read_text()
        status = started.status()
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65532"}
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        # containerd gives 1,024; the service raises them to what it may have.
        soft, hard = started.descriptors()
        assert soft == hard != "1024"
        assert started.memory_limit() == size(container["resources"]["limits"]["memory"])
        assert started.stop(spec["terminationGracePeriodSeconds"]) == 0, started.log.read_text()


@pytest.fixture
def servers(tmp_path_factory):
    with ExitStack() as stack:
        yield Stack(tmp_path_factory.mktemp("servers"), render(K8S / "overlays/dev"), stack)


def test_an_edge_that_lost_kafka_outlives_more_bodies_than_fit_into_the_memory_of_its_pod(images, prod, folder, servers):
    kafka = servers.start_kafka()
    servers.create_topic()
    spec, container = pod_of(prod, "ingest")
    admin, http = free_port(), free_port()
    own = alone(admin) | {
        "LISTEN_ADDR": f"127.0.0.1:{http}",
        "KAFKA_BROKERS": f"127.0.0.1:{servers.kafka}",
        "POLL_RESULTS_URL": "http://127.0.0.1:1",
        "AUTH": "none",
        "DURABLE_WAIT": "1s",
    }
    with running(images, "ingest", prod, spec, container, folder, **own) as started:
        wait_for("ingest is ready", lambda: started.is_over() or ask(admin, "/readyz")[0] == 200, DEADLINE)
        assert not started.is_over(), started.log.read_text()
        kafka.kill()
        limit = started.memory_limit()
        assert AT_ONCE * len(LARGEST) > limit
        with ThreadPoolExecutor(AT_ONCE) as clients:
            answers = list(clients.map(lambda _: ask(http, "/v1/events", LARGEST)[0], range(IN_ALL)))
        # Into the spool, or refused because no memory is free for the body.
        assert {200} <= set(answers) <= {200, 503}, answers
        assert not started.is_over() and ask(admin, "/healthz")[0] == 200, started.log.read_text()
        assert started.peak_memory() < limit


@pytest.mark.parametrize("service", IMAGES)
def test_an_image_has_one_program_of_ours_and_no_shell(images, service):
    with images.files(service) as root:
        assert [path.name for path in (root / "usr/local/bin").iterdir()] == [service]
        assert not [shell for shell in ("sh", "bash", "dash") if (root / "bin" / shell).exists()]


@pytest.mark.parametrize("service", IMAGES)
def test_an_image_says_what_it_is(images, service):
    config = images.config(service)
    assert config["User"] == "65532:65532"
    assert config["Labels"]["org.opencontainers.image.title"] == f"millrace-{service}"
