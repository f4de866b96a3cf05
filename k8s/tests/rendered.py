"""Renders manifests, and finds things in what was rendered.

A *variant* is what somebody may apply: an overlay, or the base with components. Needs KUSTOMIZE (the program) and
SERVICES (the folder of the built services); `./dev test` sets both.
"""

import functools
import os
import re
import subprocess
from pathlib import Path

import yaml
from needs import Needs

K8S = Path(__file__).resolve().parent.parent
OVERLAYS = sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml"))
# What somebody may apply: overlays by their names, and the base with components.
COMPONENTS = {
    "base": [],
    "spool": ["spool"],
    "network-policy": ["network-policy"],
    "monitoring": ["monitoring"],
    "dashboards": ["dashboards"],
    "hpa": ["hpa"],
    "hpa-with-spool": ["spool", "hpa-with-spool"],
    "keda": ["hpa", "keda"],
    "keda-with-spool": ["spool", "hpa-with-spool", "keda"],
    "external-secrets": ["external-secrets"],
    "load-balancer": ["load-balancer"],
    "load-balancer-with-tls": ["load-balancer", "cert-manager"],
    "spool-with-tls": ["spool", "load-balancer", "cert-manager"],
    "gateway-api": ["gateway-api"],
    "ingress": ["ingress"],
    "single-servers": ["kafka-single", "clickhouse-single"],
    "kafka-strimzi": ["network-policy", "kafka-strimzi"],
    "kafka-strimzi-with-spool": ["spool", "hpa-with-spool", "network-policy", "kafka-strimzi"],
    "backup": ["kafka-single", "clickhouse-single", "backup"],
    "backup-of-yours": ["network-policy", "backup"],
    "all": ["spool", "hpa-with-spool", "network-policy", "monitoring", "dashboards"],
}
VARIANTS = [path.name for path in OVERLAYS] + list(COMPONENTS)
WORKLOADS = {"Deployment", "StatefulSet", "Job"}
# Kinds that Kubernetes does not know, with the packages that have their types, which test_kinds.py compares. No package has
# those of Strimzi: test_strimzi.py checks what matters in them.
OF_OPERATORS = {
    "Certificate": "cert-manager",
    "ExternalSecret": "external-secrets",
    "HTTPRoute": "gateway-api",
    "Kafka": None,
    "KafkaNodePool": None,
    "KafkaTopic": None,
    "KafkaUser": None,
    "PodMonitor": "prometheus-operator",
    "PrometheusRule": "prometheus-operator",
    "ScaledObject": "keda",
}
# The images of our services, by the names of the services. Those of others are named in full.
IMAGES = {
    image["name"]: image["newName"] for image in yaml.safe_load((K8S / "images/kustomization.yaml").read_text())["images"]
}


def render(folder):
    """The documents of a kustomization."""
    built = subprocess.run([os.environ["KUSTOMIZE"], "build", str(folder)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return [document for document in yaml.safe_load_all(built.stdout) if document]


def render_changed(folder, resource, **changes):
    """The documents of a kustomization in `folder`, a new folder, that changes `resource`."""
    folder.mkdir(parents=True, exist_ok=True)
    changes = {key: relative(folder, value) if isinstance(value, list) else value for key, value in changes.items()}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": relative(folder, [resource]),
        **changes,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)


def render_variant(name, folder):
    if name not in COMPONENTS:
        return render(K8S / "overlays" / name)
    components = [K8S / "components" / component for component in COMPONENTS[name]]
    return render_changed(folder, K8S / "base", components=components, namespace="millrace")


def relative(folder, values):
    """kustomize takes folders by relative paths only."""
    return [os.path.relpath(value, folder) if isinstance(value, Path) else value for value in values]


def of_kind(documents, *kinds):
    return [document for document in documents if document["kind"] in kinds]


def only(documents, kind, name):
    """The one document of a kind with this name, or with this name and a hash."""
    found = [
        document
        for document in of_kind(documents, kind)
        if name in (document["metadata"]["name"], document["metadata"]["name"].rpartition("-")[0])
    ]
    assert len(found) == 1, f"{kind} {name}: {[document['metadata']['name'] for document in found]}"
    return found[0]


def containers(documents):
    """(workload, pod spec, container) of every container of our services."""
    for document in of_kind(documents, *WORKLOADS):
        spec = document["spec"]["template"]["spec"]
        for container in spec["containers"]:
            if service_of(container["image"]):
                yield document, spec, container


def label(workload):
    """What the pods of a workload are called, without the hash in the name of a Job."""
    return workload["metadata"]["labels"]["app.kubernetes.io/name"]


def service_of(image):
    """The service of an image of ours; None for those of others."""
    named = re.sub(r"(@|:[^/]*$).*", "", image)
    return next((service for service, name in IMAGES.items() if name == named), None)


def program(container):
    return program_of(service_of(container["image"]))


def program_of(service):
    return Path(os.environ["SERVICES"]) / service


def config_maps(documents):
    return {document["metadata"]["name"]: document["data"] for document in of_kind(documents, "ConfigMap")}


def environment(documents, spec, container, folder):
    """The container's variables: mounted folders are below `folder`, values from other objects are placeholders."""
    maps = config_maps(documents)
    found = {}
    for source in container.get("envFrom", []):
        found.update(maps[source["configMapRef"]["name"]])
    for entry in container.get("env", []):
        found[entry["name"]] = entry.get("value", "placeholder")
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        place = folder / mount["name"]
        place.mkdir(exist_ok=True)
        for name, text in files_of(documents, volumes.get(mount["name"], {})).items():
            (place / name).write_text(text)
        found = {name: moved(value, mount["mountPath"], place) for name, value in found.items()}
    return found


def files_of(documents, volume):
    """The files of a volume that is made of ConfigMaps or of a certificate of an operator, by their paths in it."""
    secret = volume.get("secret", {}).get("secretName")
    if secret in [one["spec"]["secretName"] for one in of_kind(documents, "Certificate")]:
        return certificate()
    if secret in [f"{one['metadata']['name']}-cluster-ca-cert" for one in of_kind(documents, "Kafka")]:
        return {"ca.crt": certificate()["tls.crt"]}
    maps, found = config_maps(documents), {}
    sources = volume.get("projected", {}).get("sources", [volume])
    for config in (source["configMap"] for source in sources if "configMap" in source):
        data = maps[config["name"]]
        items = config.get("items") or [{"key": name, "path": name} for name in data]
        found |= {item["path"]: data[item["key"]] for item in items}
    return found


@functools.cache
def certificate():
    """The files that cert-manager makes, of a certificate of nobody."""
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "1", "-subj", "/CN=nobody"]
    made = subprocess.run(["openssl", "req", *kind, "-keyout", "-"], check=True, capture_output=True, text=True).stdout
    key, certificate = re.findall(r"-----BEGIN [^-]*-----.*?-----END [^-]*-----\n", made, re.DOTALL)
    return {"tls.key": key, "tls.crt": certificate}


def moved(value, mount, place):
    """A variable's value with a path below `mount` changed into one below `place`."""
    return f"{place}{value[len(mount):]}" if f"{value}/".startswith(f"{mount}/") else value


def check_config(documents, spec, container, folder):
    args = container.get("args", []) + ["--check-config"]
    given = environment(documents, spec, container, folder)
    return given, subprocess.run([program(container), *args], env=given, capture_output=True, text=True)


def needs(documents, spec, container, folder):
    """What a container's program says that it needs."""
    _, checked = check_config(documents, spec, container, folder)
    assert checked.returncode == 0, checked.stderr
    return Needs(checked.stdout)


def resolved(documents, spec, container, folder):
    """Every variable of a container's program with its value, defaults too."""
    return needs(documents, spec, container, folder).variables
