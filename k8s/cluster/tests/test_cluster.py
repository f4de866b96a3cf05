"""What a real API server, its controllers and its scheduler do with every overlay.

Only `./dev test --full` runs these tests: their programs take twenty minutes to build, once. kwok plays the kubelets, so
images, probes and volumes are not tried here; docs/kubernetes.md lists what only a real cluster shows.
"""

import copy

import pytest
from control_plane import BROKEN_TAG, DEADLINE, ControlPlane, is_true
from processes import wait_for
from rendered import (
    IMAGES,
    K8S,
    OF_OPERATORS,
    OVERLAYS,
    VARIANTS,
    WORKLOADS,
    of_kind,
    render,
    render_changed,
    render_variant,
    service_of,
)

CONTROLLERS = ("statefulsets", "deployments")
VARIANT_NAMESPACE = "variant"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with ControlPlane(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(params=OVERLAYS, ids=lambda path: path.name)
def folder(request):
    return request.param


@pytest.fixture
def overlay(cluster, folder):
    """An overlay's documents, all pods ready."""
    documents = render(folder)
    apply_whole(cluster, documents)
    yield documents
    delete(cluster, namespace_of(documents))


def delete(cluster, namespace):
    cluster.kubectl("delete", "namespace", namespace, "--wait=true", f"--timeout={DEADLINE}s")


def namespace_of(documents):
    (name,) = {document["metadata"]["namespace"] for document in documents if is_workload(document)}
    return name


def is_workload(document):
    return document["kind"] in WORKLOADS


def apply_whole(cluster, documents):
    """Applies an overlay on a cluster that has only its namespace at most, and waits until its pods are ready."""
    namespace = namespace_of(documents)
    if not any(document["kind"] == "Namespace" for document in documents):
        cluster.apply([restricted(namespace)])
    cluster.apply(documents)
    wait_until_ready(cluster, namespace, "all pods are ready")


def restricted(namespace):
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}


def all_ready(cluster, namespace):
    return not unready(cluster, namespace)


def unready(cluster, namespace):
    """What is not rolled out, and the pods that are not ready with what the cluster says of them."""
    workloads = [workload for kind in CONTROLLERS for workload in cluster.list(kind, namespace)]
    missing = [f"{one['kind']} {one['metadata']['name']}: {one.get('status')}" for one in workloads if not is_rolled_out(one)]
    pods = [pod for pod in cluster.list("pods", namespace) if not is_true(pod, "Ready") and not is_over(pod)]
    return missing + [f"{pod['metadata']['name']}: {pod['spec'].get('nodeName')} {pod['status']}" for pod in pods if missing]


def wait_until_ready(cluster, namespace, what):
    try:
        wait_for(what, lambda: all_ready(cluster, namespace), DEADLINE)
    except AssertionError as late:
        raise AssertionError("\n".join([str(late), *unready(cluster, namespace)])) from None


def is_rolled_out(workload):
    status, wanted = workload.get("status", {}), workload["spec"]["replicas"]
    return (
        status.get("observedGeneration") == workload["metadata"]["generation"]
        and status.get("updatedReplicas", 0) == wanted
        and status.get("readyReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
    )


def with_tag(documents, tag):
    """The documents with another tag on the images of our services."""
    changed = copy.deepcopy(documents)
    for document in filter(is_workload, changed):
        for container in document["spec"]["template"]["spec"]["containers"]:
            if service := service_of(container["image"]):
                container["image"] = f"{IMAGES[service]}:{tag}"
    return changed


def test_every_pod_is_admitted_scheduled_and_ready(cluster, overlay):
    namespace = namespace_of(overlay)
    pods = cluster.list("pods", namespace)
    workloads = [workload for kind in CONTROLLERS for workload in cluster.list(kind, namespace)]
    assert len(pods) >= sum(workload["spec"]["replicas"] for workload in workloads)
    enforced = cluster.get("namespace", namespace, namespace)["metadata"]["labels"]
    assert enforced["pod-security.kubernetes.io/enforce"] == "restricted"


def test_applying_again_changes_nothing(cluster, overlay):
    assert cluster.differences(overlay) == ""


def test_a_release_goes_over_another_and_back_without_a_hand(cluster, folder, overlay, tmp_path):
    namespace = namespace_of(overlay)
    jobs = names(cluster, "jobs", namespace)
    images = [{"name": image, "newTag": "next"} for image in IMAGES.values()]
    following = render_changed(tmp_path, folder, images=images, transformers=[K8S / "migration"])
    cluster.apply(following)
    wait_until_ready(cluster, namespace, "the next release is rolled out")
    assert running_images(cluster, namespace) == {f"{image}:next" for image in IMAGES.values()}
    assert jobs < names(cluster, "jobs", namespace), "the next release did not migrate"
    cluster.apply(overlay)
    wait_until_ready(cluster, namespace, "the release before is rolled out again")
    assert not any(image.endswith(":next") for image in running_images(cluster, namespace))
    assert cluster.differences(overlay) == ""


def names(cluster, kind, namespace):
    return {one["metadata"]["name"] for one in cluster.list(kind, namespace)}


def running_images(cluster, namespace):
    """The images of our services in pods that stay, and are not about to end."""
    pods = [pod for pod in cluster.list("pods", namespace) if "deletionTimestamp" not in pod["metadata"] and not is_of_a_job(pod)]
    return {c["image"] for pod in pods for c in pod["spec"]["containers"] if service_of(c["image"])}


def is_of_a_job(pod):
    return any(owner["kind"] == "Job" for owner in pod["metadata"].get("ownerReferences", []))


def test_a_good_image_mends_a_broken_one_without_a_hand(cluster, overlay):
    namespace = namespace_of(overlay)
    jobs = [document for document in overlay if document["kind"] != "Job"]
    cluster.apply(with_tag(jobs, BROKEN_TAG))
    wait_for("a pod of the broken image", lambda: waiting(cluster.list("pods", namespace)), DEADLINE)
    assert not all_ready(cluster, namespace)
    # The release that breaks stops at its first pods: some of the old ones still serve.
    ready = [pod for pod in cluster.list("pods", namespace) if is_true(pod, "Ready")]
    assert ready or all(workload["spec"]["replicas"] == 1 for workload in cluster.list("statefulsets", namespace))
    cluster.apply(jobs)
    wait_until_ready(cluster, namespace, "the good image is rolled out")


def waiting(pods):
    return [
        pod
        for pod in pods
        for status in pod.get("status", {}).get("containerStatuses", [])
        if "waiting" in status.get("state", {})
    ]


def test_every_node_can_be_drained_while_its_pods_are_ready(cluster, overlay):
    namespace = namespace_of(overlay)
    for name in nodes(cluster):
        drain(cluster, name, namespace)
        wait_until_ready(cluster, namespace, "all pods are ready again")


def test_every_node_can_be_drained_while_no_pod_is_ready(cluster, folder):
    """As after a first release that cannot start, or while Kafka is away from all edges without a spool."""
    documents = [one for one in with_tag(render(folder), BROKEN_TAG) if one["kind"] != "Job"]
    namespace = namespace_of(documents)
    cluster.apply([restricted(namespace)])
    cluster.apply(documents)
    wait_for("a broken pod of each service", lambda: broken_services(cluster, namespace) == set(IMAGES), DEADLINE)
    pods = len(cluster.list("pods", namespace))
    for name in nodes(cluster):
        # The scheduler may still put a pod that it has just been given on a node that is about to be drained.
        wait_for("all pods have a node again", lambda: len(scheduled(cluster, namespace)) == pods, DEADLINE)
        drain(cluster, name, namespace)
    delete(cluster, namespace)


def broken_services(cluster, namespace):
    pods = waiting(cluster.list("pods", namespace))
    return {service_of(container["image"]) for pod in pods for container in pod["spec"]["containers"]}


def scheduled(cluster, namespace):
    return [pod for pod in cluster.list("pods", namespace) if "nodeName" in pod["spec"]]


def nodes(cluster):
    return [node["metadata"]["name"] for node in cluster.list("nodes")]


def drain(cluster, name, namespace):
    """Evicts the pods of a node as its upgrade would, and gives it back."""
    cluster.kubectl("drain", name, "--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={DEADLINE}s")
    left = [pod for pod in cluster.list("pods", namespace) if pod["spec"].get("nodeName") == name]
    assert all("deletionTimestamp" in pod["metadata"] or is_over(pod) for pod in left), left
    cluster.kubectl("uncordon", name)


def is_over(pod):
    return pod["status"].get("phase") in ("Succeeded", "Failed")


@pytest.mark.parametrize("folder", [K8S / "overlays/prod"], ids=lambda path: path.name)
def test_what_a_scaler_set_is_left_alone_by_the_next_apply(cluster, folder, overlay):
    """A workload that a scaler owns has no `replicas` in the manifest, so that applying does not undo the scaler."""
    namespace = namespace_of(overlay)
    targets = [one["spec"]["scaleTargetRef"] for one in of_kind(overlay, "HorizontalPodAutoscaler")]
    for target in targets:
        cluster.kubectl("scale", f"{target['kind']}/{target['name']}", "--replicas=4", "-n", namespace)
    cluster.apply(overlay)
    assert [cluster.get(target["kind"], target["name"], namespace)["spec"]["replicas"] for target in targets] == [4, 4, 4]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_server_accepts_every_component(cluster, variant, tmp_path):
    """Kinds of operators aside, which this cluster does not have."""
    documents = [one for one in render_variant(variant, tmp_path) if one["kind"] not in OF_OPERATORS]
    cluster.apply([restricted(VARIANT_NAMESPACE)])
    for one in documents:
        one["metadata"]["namespace"] = VARIANT_NAMESPACE
    cluster.apply([one for one in documents if one["kind"] != "Namespace"], "--dry-run=server")

