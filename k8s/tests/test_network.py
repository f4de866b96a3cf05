"""Network policies permit exactly what the services say that they call."""

import pytest
from rendered import K8S, containers, label, needs, of_kind, only, render, render_variant

DNS = {("UDP", 53), ("TCP", 53)}


@pytest.fixture(scope="module", params=["network-policy", "prod", "all"])
def guarded(request, tmp_path_factory):
    return render_variant(request.param, tmp_path_factory.mktemp("variant"))


def policies(documents, pod_labels, direction):
    """The specs of the policies for a direction that select a pod with these labels."""
    return [
        policy["spec"]
        for policy in of_kind(documents, "NetworkPolicy")
        if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], pod_labels)
    ]


def selects(selector, labels):
    wanted = selector.get("matchLabels", {})
    rules = selector.get("matchExpressions", [])
    return wanted.items() <= labels.items() and all(labels.get(rule["key"]) in rule["values"] for rule in rules)


def reached(documents, labels):
    """The ports that a pod may call: (protocol, port)."""
    rules = [rule for spec in policies(documents, labels, "Egress") for rule in spec.get("egress", [])]
    return {(port["protocol"], port["port"]) for rule in rules for port in rule["ports"]}


def called(documents, connects):
    """The ports of pods that a service calls, by what it prints of its configuration."""
    return {("TCP", port_of_pod(documents, at["host"], at["port"])) for at in connects}


def port_of_pod(documents, host, port):
    """The port of the pods behind a Service of ours: policies see that one, not the Service's."""
    ours = {label(workload): container for workload, _, container in containers(documents)}
    if host not in ours:
        return port
    assert only(documents, "Service", host)["spec"]["ports"][0]["targetPort"] == "http"
    return next(port["containerPort"] for port in ours[host]["ports"] if port["name"] == "http")


def test_nothing_is_permitted_by_default(guarded):
    (deny,) = [one["spec"] for one in of_kind(guarded, "NetworkPolicy") if one["metadata"]["name"] == "deny-all"]
    assert set(deny) == {"podSelector", "policyTypes"} and deny["policyTypes"] == ["Ingress", "Egress"]
    for workload, _, _ in containers(guarded):
        assert selects(deny["podSelector"], workload["spec"]["template"]["metadata"]["labels"]), label(workload)


def test_a_service_calls_the_ports_of_its_variables_and_dns_and_no_other(guarded, tmp_path):
    for workload, spec, container in containers(guarded):
        connects = needs(guarded, spec, container, tmp_path)["connects"]
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert reached(guarded, labels) == called(guarded, connects) | DNS, label(workload)


def test_a_spool_that_is_sent_by_a_job_reaches_kafka(guarded):
    job = only(render(K8S / "routines/send-spool"), "Job", "send-spool")
    assert reached(guarded, job["spec"]["template"]["metadata"]["labels"]) == {("TCP", 9092)} | DNS


def test_only_prometheus_reaches_the_admin_port(guarded):
    for workload, _, container in containers(guarded):
        labels = workload["spec"]["template"]["metadata"]["labels"]
        for spec in policies(guarded, labels, "Ingress"):
            for rule in spec.get("ingress", []):
                ports = [port["port"] for port in rule["ports"]]
                assert ports == ["http"] or (ports == ["admin"] and rule["from"]), label(workload)


def test_the_services_with_clients_are_reached(guarded):
    for name in ("ingest", "query-api"):
        (labels,) = [
            workload["spec"]["template"]["metadata"]["labels"]
            for workload, _, _ in containers(guarded)
            if label(workload) == name
        ]
        ports = [rule["ports"][0]["port"] for spec in policies(guarded, labels, "Ingress") for rule in spec.get("ingress", [])]
        assert sorted(ports) == ["admin", "http"]
