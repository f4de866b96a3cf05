"""Every overlay renders, is valid against strict schemas, and uses only what the services have.

Only a cluster can check admission, quotas and real probes:
`kubectl apply -k k8s/overlays/<overlay> --dry-run=server`.

Each check returns complaints, so that the tests at the end can break a manifest and check that a
complaint names it.
"""

import copy
import subprocess

import kubernetes_validate
import pytest
from needs import Needs
from processes import alone, ask, free_port, wait_for
from rendered import (
    K8S,
    OF_OPERATORS,
    WORKLOADS,
    check_config,
    config_maps,
    containers,
    environment,
    label,
    needs,
    of_kind,
    only,
    program,
)
from units import size

# The oldest and the newest supported version of Kubernetes.
VERSIONS = ("1.34", "1.36")
DEADLINE = 20


def unread_variables(documents, folder):
    for workload, spec, container in containers(documents):
        name = label(workload)
        given, checked = check_config(documents, spec, container, folder)
        if checked.returncode != 0:
            yield f"{name}: {checked.stderr.strip()}"
            continue
        read = Needs(checked.stdout).variables
        yield from (f"{name} does not read {variable}" for variable in sorted(set(given) - set(read)))


def status(port, path):
    """The status that a service answers after its start."""
    return wait_for(f"an answer to {path}", lambda: ask(port, path)[0], DEADLINE)


def missing_probes(documents, folder):
    """Calls every probe of the real program, which can reach neither Kafka nor ClickHouse."""
    for workload, spec, container in containers(documents):
        if workload["kind"] == "Job":
            continue
        name = label(workload)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        given = environment(documents, spec, container, folder)
        admin = free_port()
        service = subprocess.Popen(
            [program(container), *container.get("args", [])],
            env=given | alone(admin),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                get = container.get(kind, {}).get("httpGet")
                if get is None:
                    yield f"{name} has no {kind}"
                elif get["port"] != "admin" or "admin" not in ports:
                    yield f"{kind} of {name} asks port {get['port']}, where nothing answers probes"
                elif status(admin, get["path"]) not in (200, 503):
                    yield f"{kind} of {name} asks {get['path']}, which {name} does not answer"
        finally:
            service.kill()
            service.wait()


def closed_ports(documents, folder):
    for workload, spec, container in containers(documents):
        listens = needs(documents, spec, container, folder).listens
        for port in container.get("ports", []):
            if port["containerPort"] not in listens:
                yield f"{workload['metadata']['name']}: nothing listens on {port['containerPort']}"


def idle_selectors(documents):
    pods = [d["spec"]["template"]["metadata"]["labels"] for d in documents if d["kind"] in WORKLOADS]
    for document in documents:
        if document["kind"] in ("Service", "PodDisruptionBudget"):
            selector = document["spec"]["selector"]
            wanted = selector.get("matchLabels", selector)
            if not any(wanted.items() <= labels.items() for labels in pods):
                yield f"{document['kind']} {document['metadata']['name']} selects nothing"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_document_is_valid_to_the_letter(documents, version):
    for document in (one for one in documents if one["kind"] not in OF_OPERATORS):
        kubernetes_validate.validate(document, version, strict=True)


def test_every_variable_is_one_that_the_service_reads(documents, tmp_path):
    assert list(unread_variables(documents, tmp_path)) == []


def test_every_probe_is_answered_by_the_service(documents, tmp_path):
    assert list(missing_probes(documents, tmp_path)) == []


def test_ports_are_those_the_service_listens_on(documents, tmp_path):
    assert list(closed_ports(documents, tmp_path)) == []


def test_every_selector_finds_its_pods(documents):
    assert list(idle_selectors(documents)) == []


def test_a_pod_has_time_to_stop(documents, tmp_path):
    for workload, spec, container in containers(documents):
        if workload["kind"] != "Job":
            needed = needs(documents, spec, container, tmp_path)
            grace = spec["terminationGracePeriodSeconds"]
            assert needed.end_within(grace), f"{label(workload)}: {grace} s of grace, stops within {needed.stop}"


def test_a_pod_has_the_memory_that_its_limits_add_up_to(documents, tmp_path):
    for workload, spec, container in containers(documents):
        needed = needs(documents, spec, container, tmp_path)
        limit = container["resources"]["limits"]["memory"]
        assert needed.fit_into(size(limit)), f"{label(workload)}: {limit}, needs {needed.memory} bytes and 0.3 more"


def test_an_aggregator_has_memory_for_all_partitions_of_the_topic(documents):
    """A pod may hold them all while the others are missing."""
    topic = only(documents, "ConfigMap", "migrate")["data"]["TOPIC_PARTITIONS"]
    assert only(documents, "ConfigMap", "stream-agg")["data"]["TOPIC_PARTITIONS"] == topic


def test_every_pod_is_as_restricted_as_the_namespace_asks(documents):
    for workload, spec, container in containers(documents):
        name = label(workload)
        pod, own = spec["securityContext"], container["securityContext"]
        assert pod["runAsNonRoot"] and pod["seccompProfile"]["type"] == "RuntimeDefault", name
        assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"], name
        assert own["capabilities"] == {"drop": ["ALL"]}, name
        assert spec["automountServiceAccountToken"] is False, name
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert limits["memory"] == requests["memory"] and "cpu" not in limits, name


def test_a_drain_never_waits_for_pods_that_are_unready(documents):
    budgets = [document for document in documents if document["kind"] == "PodDisruptionBudget"]
    assert {budget["metadata"]["name"] for budget in budgets} == {"ingest", "stream-agg", "query-api"}
    for budget in budgets:
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow", budget["metadata"]["name"]
        assert budget["spec"]["maxUnavailable"] == 1, budget["metadata"]["name"]


def test_a_slow_start_or_a_busy_moment_restarts_no_pod(documents):
    for workload, _, container in containers(documents):
        if workload["kind"] != "Job":
            startup, liveness = container["startupProbe"], container["livenessProbe"]
            assert startup["periodSeconds"] * startup["failureThreshold"] >= 300, label(workload)
            assert (liveness["timeoutSeconds"], liveness["failureThreshold"]) == (5, 6), label(workload)


def test_the_pods_of_a_release_are_spread_over_zones_and_hosts(documents):
    revision = {"Deployment": "pod-template-hash", "StatefulSet": "controller-revision-hash"}
    for workload, spec, _ in containers(documents):
        if workload["kind"] in revision:
            spread = {rule["topologyKey"]: rule["matchLabelKeys"] for rule in spec["topologySpreadConstraints"]}
            keys = [revision[workload["kind"]]]
            assert spread == {"topology.kubernetes.io/zone": keys, "kubernetes.io/hostname": keys}


def test_every_pod_has_an_account_of_its_own_without_a_token(documents):
    accounts = {d["metadata"]["name"]: d for d in documents if d["kind"] == "ServiceAccount"}
    for workload, spec, _ in containers(documents):
        account = accounts[label(workload)]
        assert spec["serviceAccountName"] == account["metadata"]["name"]
        assert account["automountServiceAccountToken"] is False


def test_a_pod_that_fills_its_disk_harms_no_other(documents):
    for workload, _, container in containers(documents):
        for kind in ("requests", "limits"):
            assert "ephemeral-storage" in container["resources"][kind], label(workload)


def test_the_rollups_are_those_that_are_compiled_in():
    assert (K8S / "base/rollups.toml").read_bytes() == (K8S.parent / "schemas/rollups.toml").read_bytes()


def test_an_unknown_variable_is_named(documents, tmp_path):
    broken = copy.deepcopy(documents)
    config = next(data for name, data in config_maps(broken).items() if name.startswith("ingest"))
    config["KAFKA_BROKER"] = "typo:9092"
    assert list(unread_variables(broken, tmp_path)) == ["ingest does not read KAFKA_BROKER"]


def test_a_broken_rollups_file_is_named_with_its_line(documents, tmp_path):
    broken = copy.deepcopy(documents)
    rollups = next(data for name, data in config_maps(broken).items() if name.startswith("rollups"))
    rollups["rollups.toml"] = rollups["rollups.toml"].replace('grain = "hour"', 'grain = "our"', 1)
    line = 1 + rollups["rollups.toml"].split('grain = "our"')[0].count("\n")
    complaints = list(unread_variables(broken, tmp_path))
    assert len(complaints) == 3, complaints
    assert all(f"rollups.toml:{line}" in text and "`our`" in text for text in complaints), complaints


def test_a_probe_that_nothing_answers_is_named(documents, tmp_path):
    broken = copy.deepcopy(documents)
    probed = [container for workload, _, container in containers(broken) if label(workload) == "query-api"]
    probed[0]["livenessProbe"]["httpGet"]["path"] = "/health"
    expected = ["livenessProbe of query-api asks /health, which query-api does not answer"]
    assert list(missing_probes(broken, tmp_path)) == expected
