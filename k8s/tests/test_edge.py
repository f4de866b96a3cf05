"""An edge with a spool never loses the events in it, whatever Kubernetes does with its pods."""

import kubernetes_validate
import pytest
from rendered import K8S, containers, label, of_kind, only, render, render_variant, resolved
from units import size

@pytest.fixture(scope="module")
def edge(tmp_path_factory):
    return only(render_variant("spool", tmp_path_factory.mktemp("variant")), "StatefulSet", "ingest")


@pytest.fixture(scope="module")
def routine():
    return render(K8S / "routines/send-spool")


def settings(documents, folder):
    """The resolved variables of each container of the edge."""
    for workload, spec, container in containers(documents):
        if label(workload) in ("ingest", "send-spool"):
            yield workload, spec, container, resolved(documents, spec, container, folder)


def claims(workload, spec):
    """The names of the volumes that outlive a pod."""
    templates = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])]
    return templates + [volume["name"] for volume in spec.get("volumes", []) if "persistentVolumeClaim" in volume]


def spools_that_die_with_their_pod(documents, folder):
    for workload, spec, container, read in settings(documents, folder):
        kept = [mount["name"] for mount in container.get("volumeMounts", []) if mount["name"] in claims(workload, spec)]
        if read["SPOOL_DIR"] and read["SPOOL_DIR"] not in [str(folder / name) for name in kept]:
            yield label(workload)


def test_a_spool_outlives_its_pod(documents, tmp_path):
    assert list(spools_that_die_with_their_pod(documents, tmp_path)) == []


def test_a_spool_on_a_volume_of_the_pod_is_named(tmp_path):
    documents = render_variant("spool", tmp_path / "variant")
    edge = only(documents, "StatefulSet", "ingest")
    del edge["spec"]["volumeClaimTemplates"]
    edge["spec"]["template"]["spec"]["volumes"] = [{"name": "spool", "emptyDir": {}}]
    assert list(spools_that_die_with_their_pod(documents, tmp_path)) == ["ingest"]


def test_a_volume_holds_twice_the_spool_and_what_it_leaves_free(documents, tmp_path):
    for workload, _, _, read in settings(documents, tmp_path):
        for claim in workload["spec"].get("volumeClaimTemplates", []):
            needed = 2 * size(read["SPOOL_MAX_BYTES"]) + size(read["SPOOL_MIN_FREE"])
            assert size(claim["spec"]["resources"]["requests"]["storage"]) >= needed


def test_scaling_down_deletes_no_spool(edge):
    policy = edge["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert policy == {"whenDeleted": "Retain", "whenScaled": "Retain"}


def test_one_pod_at_a_time_uses_a_spool(edge):
    (claim,) = edge["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_the_edge_may_write_to_its_volume(edge, routine):
    for workload in (edge, only(routine, "Job", "send-spool")):
        security = workload["spec"]["template"]["spec"]["securityContext"]
        assert security["fsGroup"] == security["runAsGroup"]


def test_a_release_mends_broken_edges_without_a_hand(edge):
    assert edge["spec"]["podManagementPolicy"] == "Parallel"


def test_there_is_one_edge_in_every_variant(documents):
    edges = [one for one in of_kind(documents, "Deployment", "StatefulSet") if label(one) == "ingest"]
    assert len(edges) == 1


def test_a_spool_left_behind_is_sent_from_the_directory_that_the_edge_used(edge, routine, tmp_path):
    assert list(spools_that_die_with_their_pod(routine, tmp_path)) == []
    job = only(routine, "Job", "send-spool")["spec"]["template"]["spec"]
    (sender,) = job["containers"]
    assert sender["args"] == ["spool", "replay"]
    template = edge["spec"]["volumeClaimTemplates"][0]["metadata"]["name"]
    assert job["volumes"][0]["persistentVolumeClaim"]["claimName"].startswith(f"{template}-ingest-")


@pytest.mark.parametrize("version", ["1.34", "1.36"])
def test_the_job_that_sends_a_spool_is_valid_and_restricted(routine, version):
    for document in routine:
        kubernetes_validate.validate(document, version, strict=True)
    spec = only(routine, "Job", "send-spool")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["automountServiceAccountToken"] is False
    security = spec["containers"][0]["securityContext"]
    assert security["readOnlyRootFilesystem"] and security["capabilities"] == {"drop": ["ALL"]}
