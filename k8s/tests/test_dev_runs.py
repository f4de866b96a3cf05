"""The overlay dev runs by itself: what it configures, with a real Kafka, a real ClickHouse and the services on this machine.

All start at once, as after one apply on an empty cluster. Only paths, hosts and ports differ. Needs KAFKA and CLICKHOUSE,
the folders with Kafka's jars and ClickHouse's library; `./dev test` sets both. The images are not tried here.
"""

import base64
import os
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from processes import ask, end, free_port, running, wait_for
from rendered import K8S, config_maps, containers, environment, label, of_kind, only, program, render

DEADLINE = 240
EVENTS = b'{"event":"click","user_id":"ann"}\n{"event":"impression","user_id":"bob"}\n'


class Dev:
    """The servers and services of dev, started in `folder`."""

    def __init__(self, folder, stack):
        self.folder, self.stack = folder, stack
        self.documents = render(K8S / "overlays/dev")
        self.kafka, self.clickhouse = free_port(), free_port()
        self.ports = {name: (free_port(), free_port()) for name in ("ingest", "stream-agg", "query-api")}
        self.services = {}

    def start(self, name, command, **options):
        return self.stack.enter_context(running(command, self.folder / f"{name}.log", **options))

    def start_kafka(self):
        data, controller = self.folder / "kafka", free_port()
        text = only(self.documents, "ConfigMap", "kafka")["data"]["server.properties"]
        text = replaced(
            text,
            {
                "/var/lib/kafka/data": str(data),
                "PLAINTEXT://:9092": f"PLAINTEXT://127.0.0.1:{self.kafka}",
                "kafka-bootstrap:9092": f"127.0.0.1:{self.kafka}",
                "localhost:9093": f"127.0.0.1:{controller}",
            },
        )
        settings = self.folder / "server.properties"
        settings.write_text(text)
        (format_node,) = only(self.documents, "StatefulSet", "kafka")["spec"]["template"]["spec"]["initContainers"]
        flags = [flag for flag in format_node["args"] if not flag.startswith("--config=")]
        java = ["java", "-Xmx512m", "-cp", f"{os.environ['KAFKA']}/lib/*"]
        subprocess.run([*java, "kafka.tools.StorageTool", "format", *flags, f"--config={settings}"], check=True)
        self.start("kafka", [*java, "kafka.Kafka", str(settings)])

    def start_clickhouse(self):
        data = only(self.documents, "ConfigMap", "clickhouse")["data"]
        own = {"/etc/clickhouse/": f"{self.folder}/", "/var/lib/clickhouse/": f"{self.folder}/clickhouse/"}
        for name, text in data.items():
            (self.folder / name).write_text(replaced(text, own))
        flags = {"path": self.folder / "clickhouse", "config-file": self.folder / "config.xml"}
        flags |= {"listen_host": "127.0.0.1", "http_port": self.clickhouse, "tcp_port": free_port()}
        # The library runs a query, not a server: one that ends with its input. It starts to listen before that.
        flags |= {"input-format": "LineAsString", "structure": "line String"}
        flags["query"] = "SYSTEM START LISTEN HTTP; SELECT count() FROM table"
        (container,) = only(self.documents, "StatefulSet", "clickhouse")["spec"]["template"]["spec"]["containers"]
        self.start(
            "clickhouse",
            [
                Path(os.environ["SERVICES"]) / "devstack",
                "clickhouse-server",
                str(os.getpid()),
                f"{os.environ['CLICKHOUSE']}/libchdb.so",
                *(f"--{name}={value}" for name, value in flags.items()),
            ],
            stdin=subprocess.PIPE,
            env=os.environ | self.secrets(container),
        )

    def start_services(self):
        for workload, spec, container in containers(self.documents):
            name = label(workload)
            folder = self.folder / name
            folder.mkdir()
            variables = environment(self.documents, spec, container, folder) | self.secrets(container)
            own = {
                "kafka-bootstrap:9092": f"127.0.0.1:{self.kafka}",
                "http://clickhouse:8123": f"http://127.0.0.1:{self.clickhouse}",
                "http://query-api": f"http://127.0.0.1:{self.ports['query-api'][0]}",
            }
            variables = {variable: replaced(value, own) for variable, value in variables.items()}
            if name in self.ports:
                listen, admin = (f"127.0.0.1:{port}" for port in self.ports[name])
                variables |= {"LISTEN_ADDR": listen, "ADMIN_ADDR": admin}
            self.services[name] = self.start(name, [program(container), *container.get("args", [])], env=variables)

    def secrets(self, container):
        """The variables that come from Secrets, with their values."""
        secrets = {one["metadata"]["name"]: one["data"] for one in of_kind(self.documents, "Secret")}
        named = {
            variable["name"]: variable["valueFrom"]["secretKeyRef"]
            for variable in container.get("env", [])
            if "secretKeyRef" in variable.get("valueFrom", {})
        }
        return {name: base64.b64decode(secrets[key["name"]][key["key"]]).decode() for name, key in named.items()}

    def are_all_ready(self):
        return all(ask(admin, "/readyz")[0] == 200 for _, admin in self.ports.values())


def replaced(text, own):
    for old, new in own.items():
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    with ExitStack() as stack:
        started = Dev(tmp_path_factory.mktemp("dev"), stack)
        # The services first: they wait for what is missing.
        started.start_services()
        started.start_clickhouse()
        started.start_kafka()
        yield started
        # Before the servers, without which they would try for long to finish their work.
        for process in started.services.values():
            end(process)


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
