"""Requests of clients reach the service that takes them, with the address of the client and enough time."""

import re

import pytest
from rendered import K8S, containers, label, of_kind, only, render_variant, resolved
from units import seconds


@pytest.fixture(scope="module")
def routed(tmp_path_factory):
    return render_variant("gateway-api", tmp_path_factory.mktemp("variant"))


def edge(documents, folder):
    """The resolved variables of the edge."""
    (found,) = [
        resolved(documents, spec, container, folder)
        for workload, spec, container in containers(documents)
        if label(workload) == "ingest"
    ]
    return found


def rules(documents):
    return only(documents, "HTTPRoute", "millrace")["spec"]["rules"]


def rules_of(documents, service):
    return [rule for rule in rules(documents) if rule["backendRefs"][0]["name"] == service]


def backends(documents):
    """(service, port) of each way in."""
    for route in of_kind(documents, "HTTPRoute"):
        for rule in route["spec"]["rules"]:
            yield from ((ref["name"], ref["port"]) for ref in rule["backendRefs"])
    for ingress in of_kind(documents, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                yield service["name"], service["port"]["name"]


def test_a_way_in_leads_to_a_port_of_a_service(documents):
    for name, port in backends(documents):
        ports = only(documents, "Service", name)["spec"]["ports"]
        assert port in [one[key] for one in ports for key in ("name", "port")], (name, port)


def test_an_edge_behind_a_proxy_knows_its_proxies(documents, tmp_path):
    if list(backends(documents)):
        assert edge(documents, tmp_path)["TRUSTED_PROXIES"]


def test_a_load_balancer_keeps_the_address_of_the_client(documents):
    for service in of_kind(documents, "Service"):
        if service["spec"].get("type") == "LoadBalancer":
            assert service["spec"]["externalTrafficPolicy"] == "Local"


def test_the_component_makes_a_load_balancer(tmp_path):
    service = only(render_variant("load-balancer", tmp_path), "Service", "ingest")
    assert service["spec"]["type"] == "LoadBalancer"


def test_a_request_has_the_time_that_the_edge_may_take(routed, tmp_path):
    posts, _ = rules_of(routed, "ingest")
    assert seconds(posts["timeouts"]["request"]) >= seconds(edge(routed, tmp_path)["DURABLE_WAIT"]) + 5


def test_every_path_of_the_edge_is_routed_to_it(routed):
    source = (K8S.parent / "ingest/src/route.rs").read_text()
    body = source.split("match path {")[1].split("_ => Self::Other")[0]
    paths = {path.rstrip("/") for path in re.findall(r'"(/[^"]*)"', body)}
    posts, browsers = (rule["matches"] for rule in rules_of(routed, "ingest"))
    for matches, method in ((posts, "POST"), (browsers, "OPTIONS")):
        assert {match["path"]["value"] for match in matches} == paths, method
        assert {match["method"] for match in matches} == {method}
    asks_for_post = [{"name": "Access-Control-Request-Method", "value": "POST"}]
    assert all(match["headers"] == asks_for_post for match in browsers)


def test_all_other_requests_are_reads_and_a_stream_has_no_end(routed):
    last = rules(routed)[-1]
    assert last["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert last["backendRefs"][0]["name"] == "query-api" and last["timeouts"]["request"] == "0s"


def test_an_ingress_names_no_controller(tmp_path):
    ingress = only(render_variant("ingress", tmp_path), "Ingress", "millrace")
    assert "ingressClassName" not in ingress["spec"] and "annotations" not in ingress["metadata"]
