"""Renders manifests, and finds things in what was rendered.

A *variant* is what somebody may apply: an overlay, or the base with components. Needs KUSTOMIZE (the program) and
SERVICES (the folder of the built services); `./dev test` sets both.
"""

import os
import subprocess
from pathlib import Path

import yaml

K8S = Path(__file__).resolve().parent.parent
OVERLAYS = sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml"))
WORKLOADS = {"Deployment", "StatefulSet", "Job", "CronJob"}
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
    changes = {key: relative(folder, value) for key, value in changes.items()}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": relative(folder, [resource]),
        **changes,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)


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
    """The container's variables: mounted files are in `folder`, values from other objects are placeholders."""
    maps = config_maps(documents)
    found = {}
    for source in container.get("envFrom", []):
        found.update(maps[source["configMapRef"]["name"]])
    for entry in container.get("env", []):
        found[entry["name"]] = entry.get("value", "placeholder")
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        for name, text in maps[volumes[mount["name"]]["configMap"]["name"]].items():
            (folder / name).write_text(text)
        moved = mount["mountPath"] + "/"
        found = {name: value.replace(moved, f"{folder}/") for name, value in found.items()}
    return found


def check_config(documents, spec, container, folder):
    args = container.get("args", []) + ["--check-config"]
    given = environment(documents, spec, container, folder)
    return given, subprocess.run([program(container), *args], env=given, capture_output=True, text=True)
