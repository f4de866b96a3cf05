"""Renders manifests, and finds things in what was rendered.

A *variant* is what somebody may apply: an overlay, or the base with components. Needs KUSTOMIZE (the program) and
SERVICES (the folder of the built services); `./dev test` sets both.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import yaml

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
    "load-balancer": ["load-balancer"],
    "gateway-api": ["gateway-api"],
    "ingress": ["ingress"],
    "single-servers": ["kafka-single", "clickhouse-single"],
    "all": ["spool", "hpa-with-spool", "network-policy", "monitoring", "dashboards"],
}
VARIANTS = [path.name for path in OVERLAYS] + list(COMPONENTS)
WORKLOADS = {"Deployment", "StatefulSet", "Job"}
# Where the images of our services come from. Those of others are named in full.
OURS = "registry.example/millrace/"


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
            if container["image"].startswith(OURS):
                yield document, spec, container


def label(workload):
    """What the pods of a workload are called, without the hash in the name of a Job."""
    return workload["metadata"]["labels"]["app.kubernetes.io/name"]


def program(container):
    name = container["image"].removeprefix(OURS).split("@")[0].split(":")[0]
    return Path(os.environ["SERVICES"]) / name


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
        config = volumes.get(mount["name"], {}).get("configMap")
        for name, text in (maps[config["name"]] if config else {}).items():
            (place / name).write_text(text)
        found = {name: moved(value, mount["mountPath"], place) for name, value in found.items()}
    return found


def moved(value, mount, place):
    """A variable's value with a path below `mount` changed into one below `place`."""
    return f"{place}{value[len(mount):]}" if f"{value}/".startswith(f"{mount}/") else value


def check_config(documents, spec, container, folder):
    args = ["--check-config", "--json", *container.get("args", [])]
    given = environment(documents, spec, container, folder)
    return given, subprocess.run([program(container), *args], env=given, capture_output=True, text=True)


def needs(documents, spec, container, folder):
    """What a container's program prints that it needs: memory, time for a stop, addresses; and its variables."""
    _, checked = check_config(documents, spec, container, folder)
    assert checked.returncode == 0, checked.stderr
    return json.loads(checked.stdout)


def resolved(documents, spec, container, folder):
    """Every variable of a container's program with its value, defaults too."""
    return needs(documents, spec, container, folder)["variables"]


UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def size(text):
    """The bytes of a quantity of Kubernetes, or of a size among our variables."""
    number, unit = re.fullmatch(r"([0-9]+) ?([A-Za-z]*)", text).groups()
    return int(number) * UNITS[unit]


def seconds(text):
    """The seconds of a duration among our variables: `15s`, `1m 15s`."""
    parts = re.findall(r"([0-9]+)([a-z]+)", text)
    return sum(int(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts)
