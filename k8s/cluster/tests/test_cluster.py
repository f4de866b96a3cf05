"""What a real API server, its controllers and its scheduler do with every overlay.

Only `./dev test --full` runs these tests: their programs take twenty minutes to build, once. kwok plays the kubelets, so
images, probes and volumes are not tried here; docs/kubernetes.md lists what only a real cluster shows.
"""

import copy

import pytest
from control_plane import BROKEN_TAG, DEADLINE, ControlPlane, is_true
from processes import wait_for
from rendered import OVERLAYS, WORKLOADS, render

CONTROLLERS = ("statefulsets", "deployments")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with ControlPlane(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(params=OVERLAYS, ids=lambda path: path.name)
def overlay(request, cluster):
    """An overlay's documents, all pods ready."""
    documents = render(request.param)
    apply_whole(cluster, documents)
    yield documents
    cluster.kubectl("delete", "namespace", namespace_of(documents), "--wait=true", f"--timeout={DEADLINE}s")


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
            if "millrace" in container["image"]:
                container["image"] = f"{container['image'].split('@')[0].rsplit(':', 1)[0]}:{tag}"
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


def test_a_release_over_another_rolls_every_workload_and_migrates_again(cluster, overlay):
    namespace = namespace_of(overlay)
    before = {job["metadata"]["name"] for job in cluster.list("jobs", namespace)}
    # kustomize names the Job after image and configuration, so it has to render the other image.
    release = rename_jobs(with_tag(overlay, "next"), "next")
    cluster.apply(release)
    wait_until_ready(cluster, namespace, "the release is rolled out")
    jobs = {job["metadata"]["name"]: job for job in cluster.list("jobs", namespace)}
    assert set(jobs) > before
    images = {c["image"] for pod in cluster.list("pods", namespace) for c in pod["spec"]["containers"]}
    assert any(image.endswith(":next") for image in images)


def rename_jobs(documents, suffix):
    for document in documents:
        if document["kind"] == "Job":
            document["metadata"]["name"] += f"-{suffix}"
    return documents


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


@pytest.mark.parametrize("image", ["good", BROKEN_TAG])
def test_every_node_can_be_drained_whatever_its_pods_do(cluster, overlay, image):
    namespace = namespace_of(overlay)
    if image == BROKEN_TAG:
        cluster.apply(with_tag([document for document in overlay if document["kind"] != "Job"], BROKEN_TAG))
        wait_for("a pod of the broken image", lambda: waiting(cluster.list("pods", namespace)), DEADLINE)
    for name in [node["metadata"]["name"] for node in cluster.list("nodes")]:
        cluster.kubectl(
            "drain", name, "--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={DEADLINE}s"
        )
        left = [pod for pod in cluster.list("pods", namespace) if pod["spec"].get("nodeName") == name]
        assert all("deletionTimestamp" in pod["metadata"] or is_over(pod) for pod in left), left
        cluster.kubectl("uncordon", name)
        if image != BROKEN_TAG:
            wait_until_ready(cluster, namespace, "all pods are ready again")


def is_over(pod):
    return pod["status"].get("phase") in ("Succeeded", "Failed")


def test_what_a_scaler_set_is_left_alone_by_the_next_apply(cluster, overlay):
    """A workload that a scaler owns has no `replicas` in the manifest, so that applying does not undo the scaler."""
    namespace = namespace_of(overlay)
    scaled = [
        document["spec"]["scaleTargetRef"]
        for document in overlay
        if document["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")
    ]
    if not scaled:
        pytest.skip("the overlay has no scaler")
    for target in scaled:
        kind = target.get("kind", "StatefulSet").lower()
        cluster.kubectl("scale", f"{kind}/{target['name']}", "--replicas=4", "-n", namespace)
    cluster.apply(overlay)
    for target in scaled:
        kind = target.get("kind", "StatefulSet").lower()
        assert cluster.get(kind, target["name"], namespace)["spec"]["replicas"] == 4
