"""A Kubernetes control plane with made-up nodes, on this machine.

etcd, the API server, the controllers and the scheduler are one program, k8s/cluster/main.go; kwok plays the kubelets. All
of them listen on free ports of the loopback address, write their output into one folder, and are ended by their process
ids. Needs CLUSTER, the program, and KWOK, the folder with the program and its stages; `./dev test --full` builds both.
"""

import json
import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import yaml
from processes import free_port, running, wait_for

CLUSTER = os.environ["CLUSTER"]
KWOK = Path(os.environ["KWOK"])
# How long anything of the cluster may take on a busy machine of two cores, in seconds.
DEADLINE = 180
ZONES = ("a", "b", "c")


class ControlPlane:
    """A running cluster. Use it as a context."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.kubeconfig = self.folder / "kubeconfig"
        self.ended = ExitStack()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.ended.close()
            raise
        return self

    def __exit__(self, *_):
        self.ended.close()

    def start(self):
        etcd, peer, api = free_port(), free_port(), free_port()
        key = self.folder / "service-accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        tokens = self.folder / "tokens.csv"
        tokens.write_text("token,admin,1,system:masters\n")
        self.write_kubeconfig(api)
        client, peers = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peer}"
        self.run_component(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        )
        self.run_component(
            "kube-apiserver",
            f"--etcd-servers={client}",
            "--bind-address=127.0.0.1",
            f"--secure-port={api}",
            f"--cert-dir={self.folder / 'certificates'}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
        )
        wait_for("the API server is ready", lambda: self.succeeds("get", "--raw", "/readyz"), DEADLINE)
        self.run_component(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            f"--service-account-private-key-file={key}",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            # kwok renews the leases of its nodes late on a busy machine. A node that is called unready for it makes its
            # pods unready, and nothing of kwok's would ever make them ready again.
            "--node-monitor-grace-period=30m",
        )
        self.run_component(
            "kube-scheduler",
            f"--kubeconfig={self.kubeconfig}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
        )
        wait_for("the default service account", lambda: self.succeeds("get", "sa", "default"), DEADLINE)
        self.start_kubelets()

    def write_kubeconfig(self, api):
        cluster = {"server": f"https://127.0.0.1:{api}", "insecure-skip-tls-verify": True}
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "here", "cluster": cluster}],
                    "users": [{"name": "admin", "user": {"token": "token"}}],
                    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
                    "current-context": "here",
                }
            )
        )

    def run_component(self, name, *flags):
        self.run(name, [CLUSTER, name, *flags])

    def run(self, name, command):
        self.ended.enter_context(running(command, self.folder / f"{name}.log"))

    # The stages of kwok for pods and nodes, and with them nodes in three zones, ready.
    def start_kubelets(self):
        stages = self.folder / "stages.yaml"
        stages.write_text((KWOK / "stages.yaml").read_text() + BROKEN_IMAGE)
        self.run(
            "kwok",
            [
                KWOK / "kwok",
                f"--kubeconfig={self.kubeconfig}",
                "--manage-all-nodes=true",
                f"--config={stages}",
                f"--server-address=127.0.0.1:{free_port()}",
            ],
        )
        self.apply([node(f"node-{zone}{number}", zone) for zone in ZONES for number in (1, 2)])
        # No provisioner makes volumes here, and none is used twice: a released volume waits for a person.
        modes = ("ReadWriteOnce", "ReadWriteOncePod")
        self.apply([STORAGE_CLASS, *(volume(f"volume-{n}-{mode.lower()}", mode) for mode in modes for n in range(VOLUMES))])
        wait_for("all nodes are ready", lambda: all(is_true(node, "Ready") for node in self.list("nodes")), DEADLINE)

    def try_kubectl(self, *arguments, text=None):
        command = [CLUSTER, "kubectl", f"--kubeconfig={self.kubeconfig}", *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=DEADLINE + 15)

    def succeeds(self, *arguments):
        return self.try_kubectl(*arguments).returncode == 0

    def kubectl(self, *arguments, text=None):
        """The output of a command of kubectl that must succeed."""
        done = self.try_kubectl(*arguments, text=text)
        assert done.returncode == 0, f"kubectl {' '.join(map(str, arguments))}: {done.stderr}"
        # A Deployment whose pods would be refused is accepted, with a warning.
        assert "would violate PodSecurity" not in done.stderr, done.stderr
        return done.stdout

    def apply(self, documents, *flags):
        """Applies documents as the pages of Millrace say: `kubectl apply`, without flags."""
        self.kubectl("apply", *flags, "-f", "-", text=yaml.safe_dump_all(documents))

    def differences(self, documents):
        """What applying the documents would change, as a diff."""
        diff = self.try_kubectl("diff", "-f", "-", text=yaml.safe_dump_all(documents))
        assert diff.returncode in (0, 1), diff.stderr
        return diff.stdout

    def get(self, kind, name, namespace):
        return json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json"))

    def list(self, kind, namespace=None):
        place = ["-n", namespace] if namespace else []
        return json.loads(self.kubectl("get", kind, *place, "-o", "json"))["items"]


# A pod with such an image never becomes ready, as one whose image cannot be pulled or whose program refuses to start.
BROKEN_TAG = "broken"
BROKEN_IMAGE = f"""
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata:
  name: pod-with-broken-image
spec:
  resourceRef:
    apiGroup: v1
    kind: Pod
  selector:
    matchExpressions:
      - key: '.metadata.deletionTimestamp'
        operator: 'DoesNotExist'
      - key: '.status.podIP'
        operator: 'DoesNotExist'
      - key: '.spec.containers.[].image | select(endswith(":{BROKEN_TAG}"))'
        operator: 'Exists'
  weight: 1000000
  next:
    statusTemplate: |
      {{{{ $now := Now }}}}
      conditions:
        - lastTransitionTime: {{{{ $now | Quote }}}}
          status: "False"
          type: Ready
          reason: ContainersNotReady
      containerStatuses:
      {{{{ range .spec.containers }}}}
        - image: {{{{ .image | Quote }}}}
          name: {{{{ .name | Quote }}}}
          ready: false
          restartCount: 0
          state:
            waiting:
              reason: ImagePullBackOff
      {{{{ end }}}}
      hostIP: {{{{ NodeIPWith .spec.nodeName | Quote }}}}
      podIP: {{{{ PodIPWith .spec.nodeName ( or .spec.hostNetwork false ) ( or .metadata.uid "" ) ( or .metadata.name "" ) ( or .metadata.namespace "" ) | Quote }}}}
      phase: Pending
"""


# Enough for every overlay and every test of it.
VOLUMES = 100
STORAGE_CLASS = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "made-up", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "kubernetes.io/no-provisioner",
    "volumeBindingMode": "WaitForFirstConsumer",
}


def volume(name, mode):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "100Gi"},
            "accessModes": [mode],
            "storageClassName": "made-up",
            "hostPath": {"path": f"/made-up/{name}"},
        },
    }


def node(name, zone):
    size = {"cpu": "32", "memory": "256Gi", "pods": "110", "ephemeral-storage": "1Ti"}
    labels = {
        "kubernetes.io/hostname": name,
        "topology.kubernetes.io/zone": zone,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {"capacity": size, "allocatable": size},
    }


def is_true(document, condition):
    conditions = document.get("status", {}).get("conditions", [])
    return any(one["type"] == condition and one["status"] == "True" for one in conditions)
