"""Which metrics an expression of PromQL reads, and which there are."""

import re

from rendered import K8S

# Those of others, with their labels that we use. Prometheus itself, kube-state-metrics, the kubelet, cert-manager.
OF_OTHERS = {
    "up": {"job"},
    "kube_pod_status_ready": {"condition", "pod"},
    "kube_pod_container_status_restarts_total": {"container"},
    "kube_pod_container_status_last_terminated_reason": {"reason"},
    "kube_pod_spec_volumes_persistentvolumeclaims_info": {"persistentvolumeclaim"},
    "kube_deployment_status_replicas_updated": {"deployment"},
    "kube_deployment_spec_replicas": {"deployment"},
    "kube_statefulset_status_replicas_updated": {"statefulset"},
    "kube_statefulset_replicas": {"statefulset"},
    "kube_job_failed": {"job_name", "condition"},
    "kube_cronjob_created": {"cronjob"},
    "kube_cronjob_status_last_successful_time": {"cronjob"},
    "kube_horizontalpodautoscaler_status_current_replicas": {"horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_spec_max_replicas": {"horizontalpodautoscaler"},
    "kubelet_volume_stats_available_bytes": {"persistentvolumeclaim"},
    "kubelet_volume_stats_capacity_bytes": {"persistentvolumeclaim"},
    "certmanager_certificate_expiration_timestamp_seconds": {"name"},
}
# Labels that Prometheus adds to every series.
ADDED = {"namespace", "pod", "job", "le"}
# A name that is no function, perhaps with the names of its labels behind it.
SELECTOR = re.compile(r"\b([a-z_][a-z0-9_]*)\b(?!\s*\()(?:\{([^}]*)\})?")
OPERATORS = {"and", "or", "unless", "bool", "offset"}
SUFFIXES = ("_bucket", "_sum", "_count")


def exported():
    """The labels of each metric that our programs export: docs/metrics.md is made from them."""
    page = (K8S.parent / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| (\w+) \| ([^|]*) \|", page, re.MULTILINE)
    found = {}
    for name, kind, labels in rows:
        for full in [name + suffix for suffix in SUFFIXES] if kind == "histogram" else [name]:
            found[full] = set(re.findall(r"`(\w+)`", labels))
    return found


def read_by(expression):
    """(metric, labels of its matchers) for each selector of an expression."""
    bare = re.sub(r'"(\\.|[^"\\])*"', '""', expression)
    bare = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", "", bare)
    bare = re.sub(r"\[[^]]*\]", "", bare)
    bare = re.sub(r"\{[^}]*\}", keep_names, bare)
    for name, labels in SELECTOR.findall(bare):
        if name not in OPERATORS:
            yield name, set(labels.split())


def keep_names(matchers):
    """`{a="", b=~""}` as `{a b}`."""
    names = re.findall(r"(\w+)\s*[=!]", matchers.group(0))
    return "{" + " ".join(names) + "}"


def unknown(expression):
    """What an expression reads although nothing exports it."""
    known = exported() | OF_OTHERS
    there = set(ADDED)
    for name, labels in read_by(expression):
        if name not in known:
            yield name
            continue
        there |= known[name]
        yield from (f"{name}{{{label}}}" for label in sorted(labels - known[name] - ADDED))
    for grouped in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        yield from (f"by {label}" for label in re.findall(r"\w+", grouped) if label not in there)
