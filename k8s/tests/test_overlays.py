"""What the overlays promise beside what every variant does: dev runs by itself, prod is fit for production."""

import os
import re
import subprocess
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest
from rendered import COMPONENTS, K8S, WORKLOADS, config_maps, containers, label, of_kind, only, render


@pytest.fixture(scope="module")
def dev():
    return render(K8S / "overlays/dev")


@pytest.fixture(scope="module")
def prod():
    return render(K8S / "overlays/prod")


def pods(documents):
    return [document["spec"]["template"]["spec"] for document in of_kind(documents, *WORKLOADS)]


def secrets_named(documents):
    variables = [v for pod in pods(documents) for c in pod["containers"] for v in c.get("env", [])]
    keys = [variable["valueFrom"]["secretKeyRef"] for variable in variables if "secretKeyRef" in variable.get("valueFrom", {})]
    return {(key["name"], key["key"]) for key in keys}


def test_dev_brings_every_secret_that_it_names(dev):
    brought = {(one["metadata"]["name"], key) for one in of_kind(dev, "Secret") for key in one["data"]}
    assert secrets_named(dev) == brought


def test_dev_brings_every_server_that_its_services_call(dev):
    services = {(one["metadata"]["name"], port["port"]) for one in of_kind(dev, "Service") for port in one["spec"]["ports"]}
    for data in config_maps(dev).values():
        for variable in ("KAFKA_BROKERS", "CLICKHOUSE_URL", "POLL_RESULTS_URL"):
            if variable in data:
                host, _, port = data[variable].removeprefix("http://").partition(":")
                assert (host, int(port or 80)) in services, data[variable]


def test_the_topic_of_dev_fits_one_broker(dev):
    assert only(dev, "StatefulSet", "kafka")["spec"]["replicas"] == 1
    assert only(dev, "ConfigMap", "migrate")["data"]["TOPIC_REPLICATION"] == "1"


def test_the_broker_of_dev_is_reached_by_the_name_it_gives_out(dev):
    text = only(dev, "ConfigMap", "kafka")["data"]["server.properties"]
    given = re.search(r"^advertised.listeners=PLAINTEXT://(.*)$", text, re.MULTILINE).group(1)
    assert given == only(dev, "ConfigMap", "ingest")["data"]["KAFKA_BROKERS"]


def test_clickhouse_takes_the_password_that_its_users_send(dev):
    (container,) = only(dev, "StatefulSet", "clickhouse")["spec"]["template"]["spec"]["containers"]
    server = {variable["name"]: variable["valueFrom"]["secretKeyRef"] for variable in container["env"]}
    for workload, _, client in containers(dev):
        sent = [v["valueFrom"]["secretKeyRef"] for v in client.get("env", []) if v["name"] == "CLICKHOUSE_PASSWORD"]
        if sent:
            user = config_maps(dev)[client["envFrom"][0]["configMapRef"]["name"]]["CLICKHOUSE_USER"]
            assert server[f"{user.upper()}_PASSWORD"] == sent[0], label(workload)


def test_the_users_of_clickhouse_are_what_migrate_prints(dev):
    ours = (K8S / "components/clickhouse-single/users.xml").read_text()
    variables = {"KAFKA_BROKERS": "k:1", "CLICKHOUSE_URL": "http://c:8123"}
    printing = [Path(os.environ["SERVICES"]) / "stream-agg", "migrate", "--print-users-xml"]
    assert subprocess.run(printing, env=variables, check=True, capture_output=True, text=True).stdout == ours
    (container,) = only(dev, "StatefulSet", "clickhouse")["spec"]["template"]["spec"]["containers"]
    taken = {password.get("from_env") for password in xml.fromstring(ours).iter("password")} - {None}
    assert {variable["name"] for variable in container["env"]} == taken


def test_the_broker_of_dev_is_set_up_as_the_local_one_that_tests_run():
    ours = properties((K8S / "components/kafka-single/server.properties").read_text())
    local = properties((K8S.parent / "devstack/config/server.properties").read_text())
    places = {"controller.quorum.voters", "listeners", "advertised.listeners", "listener.security.protocol.map", "log.dirs"}
    assert {name: value for name, value in ours.items() if local.get(name) != value and name not in places} == {}


def properties(text):
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def test_every_component_is_tried_and_on_the_page_of_kubernetes():
    there = {path.parent.name for path in K8S.glob("components/*/kustomization.yaml")}
    assert {name for names in COMPONENTS.values() for name in names} == there
    page = (K8S.parent / "docs/kubernetes.md").read_text()
    assert [name for name in sorted(there) if f"`{name}`" not in page] == []


def test_every_pod_of_dev_is_as_restricted_as_its_namespace_asks(dev):
    for pod in pods(dev):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"] + pod.get("initContainers", []):
            security = container["securityContext"]
            assert security["capabilities"] == {"drop": ["ALL"]} and security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True


def test_namespaces_enforce_a_pinned_version_of_restricted(dev, prod):
    for documents in (dev, prod):
        (namespace,) = of_kind(documents, "Namespace")
        labels = namespace["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        assert re.fullmatch(r"v1\.[0-9]+", labels["pod-security.kubernetes.io/enforce-version"])


def test_prod_runs_images_by_digest(prod):
    for workload, _, container in containers(prod):
        assert re.fullmatch(r"[^@]+@sha256:[0-9a-f]{64}", container["image"]), label(workload)


def test_prod_names_secrets_and_holds_none(prod):
    assert of_kind(prod, "Secret") == []
    names = {"clickhouse-migrator", "clickhouse-loader", "clickhouse-poller"}
    assert secrets_named(prod) == {(name, "password") for name in names}
    for name, data in config_maps(prod).items():
        assert not [key for key in data if "PASSWORD" in key or "SECRET" in key], name


def test_prod_always_has_three_edges_and_two_of_the_others(prod):
    least = {one["metadata"]["name"]: one["spec"]["minReplicas"] for one in of_kind(prod, "HorizontalPodAutoscaler")}
    assert least["ingest"] >= 3 and least["stream-agg"] >= 2 and least["query-api"] >= 2


def test_prod_keeps_events_while_kafka_is_unreachable(prod):
    assert only(prod, "StatefulSet", "ingest")["spec"]["volumeClaimTemplates"]
    assert only(prod, "ConfigMap", "ingest")["data"]["SPOOL_DIR"]


def test_the_pods_of_prod_leave_after_the_balancer_noticed(prod):
    for name in ("ingest", "query-api"):
        assert only(prod, "ConfigMap", name)["data"]["DRAIN_DELAY"] == "15s"


def test_prod_replicates_the_topic(prod):
    assert only(prod, "ConfigMap", "migrate")["data"]["TOPIC_REPLICATION"] == "3"


def test_prod_permits_only_the_network_that_it_needs(prod):
    assert only(prod, "NetworkPolicy", "deny-all")
