"""Runs what an overlay configures: a real Kafka, a real ClickHouse and the services, on this machine.

Only paths, hosts and ports differ. Needs KAFKA and CLICKHOUSE, the folders with Kafka's jars and ClickHouse's library.
"""

import base64
import os
import subprocess
from pathlib import Path

from processes import ask, end, free_port, running
from rendered import containers, environment, files_of, label, of_kind, only, program


class Stack:
    """The servers and services of the documents, started in `folder`; `stack` ends them."""

    def __init__(self, folder, documents, stack):
        self.folder, self.stack, self.documents = folder, stack, documents
        self.kafka, self.clickhouse = free_port(), free_port()
        self.ports = {name: (free_port(), free_port()) for name in ("ingest", "stream-agg", "query-api")}
        self.services, self.commands = {}, {}

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
        return self.start("kafka", [*java, "kafka.Kafka", str(settings)])

    def create_topic(self):
        """The topic, where no migration creates it. Waits for Kafka."""
        tool = ["java", "-Xmx64m", "-cp", f"{os.environ['KAFKA']}/lib/*", "org.apache.kafka.tools.TopicCommand"]
        flags = [f"--bootstrap-server=127.0.0.1:{self.kafka}", "--create", "--topic=events", "--partitions=4"]
        subprocess.run([*tool, *flags], check=True, capture_output=True)

    def start_clickhouse(self, name="clickhouse"):
        """A server with its data in a folder of this name."""
        pod = only(self.documents, "StatefulSet", "clickhouse")["spec"]["template"]["spec"]
        home = self.folder / name
        own = {
            "/etc/clickhouse/": f"{home}/",
            "/var/lib/clickhouse/": f"{home}/data/",
            "/var/lib/clickhouse-backups/": f"{self.folder}/backups/",
        }
        for path, text in files_of(self.documents, pod["volumes"][0]).items():
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (home / path).write_text(replaced(text, own))
        flags = {"path": home / "data", "config-file": home / "config.xml"}
        flags |= {"listen_host": "127.0.0.1", "http_port": self.clickhouse, "tcp_port": free_port()}
        # The library runs a query, not a server: one that ends with its input. It starts to listen before that.
        flags |= {"input-format": "LineAsString", "structure": "line String"}
        flags["query"] = "SYSTEM START LISTEN HTTP; SELECT count() FROM table"
        (container,) = pod["containers"]
        return self.start(
            name,
            [
                Path(os.environ["SERVICES"]) / "devstack",
                "clickhouse-server",
                str(os.getpid()),
                f"{os.environ['CLICKHOUSE']}/libchdb.so",
                *(f"--{flag}={value}" for flag, value in flags.items()),
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
            self.commands[name] = [program(container), *container.get("args", [])], variables
            self.start_service(name)

    def start_service(self, name):
        command, variables = self.commands[name]
        self.services[name] = self.start(name, command, env=variables)

    def end_services(self):
        """Before the servers, without which they would try for long to finish their work."""
        for process in self.services.values():
            end(process)

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
