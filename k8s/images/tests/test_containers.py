"""The images run as the pods of the overlays describe it: user, read-only root, no capabilities, seccomp, memory.

Only `./dev test --full` runs these tests, as root. The base is Debian's, not distroless: docs/kubernetes.md lists what only
a real cluster shows.
"""

import pytest
from container import Images, running
from processes import alone, ask, free_port, wait_for
from rendered import IMAGES, K8S, containers, label, render
from units import size

DEADLINE = 60


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
