"""Builds the images of the Dockerfile with buildah and runs them with runc as a kubelet would run the rendered pods.

Nothing is compiled and nothing comes from a registry of images: the programs in SERVICES take the place of the build, and a
base of Debian's packages takes that of distroless. Needs root, buildah, runc and apt; `./dev test --full` installs them.
"""

import json
import os
import re
import resource
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

from processes import STOP, wait_for
from rendered import IMAGES, K8S, environment
from units import size

ROOT = K8S.parent
DOCKERFILE = ROOT / "Dockerfile"
BASE = "localhost/base:1"
# What distroless `cc` has, too: the C library, the runtime of gcc, certificates, time zones, /etc.
PACKAGES = ("base-files", "ca-certificates", "libc6", "libgcc-s1", "tzdata")
# What Debian permits containers by default, from the same source as containerd's RuntimeDefault.
SECCOMP = Path("/usr/share/containers/seccomp.json")
ARCHITECTURE = "amd64"


class Images:
    """The images of the services, built in `folder`, which also holds buildah's storage."""

    def __init__(self, folder):
        self.folder = Path(folder)
        storage = {"driver": "vfs", "runroot": str(self.folder / "run"), "graphroot": str(self.folder / "graph")}
        lines = ["[storage]", *(f'{name} = "{value}"' for name, value in storage.items())]
        (self.folder / "storage.conf").write_text("\n".join(lines))
        self.variables = os.environ | {"CONTAINERS_STORAGE_CONF": str(self.folder / "storage.conf")}
        self.build_base()
        self.build = self.folder / "build"
        (self.build / "out").mkdir(parents=True)
        for service in IMAGES:
            shutil.copy(Path(os.environ["SERVICES"]) / service, self.build / "out")
        self.tags = {service: self.build_image(service) for service in IMAGES}

    def buildah(self, *arguments, **options):
        done = subprocess.run(["buildah", *arguments], env=self.variables, capture_output=True, text=True, **options)
        assert done.returncode == 0, f"buildah {' '.join(map(str, arguments))}: {done.stderr}"
        return done.stdout.strip()

    def build_base(self):
        packages, root = self.folder / "packages", self.folder / "base/root"
        packages.mkdir()
        root.mkdir(parents=True)
        # As root apt downloads into folders of root only with this.
        subprocess.run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *PACKAGES], cwd=packages, check=True)
        for package in packages.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, root], check=True)
        (self.folder / "base/Dockerfile").write_text("FROM scratch\nCOPY root /\n")
        self.buildah("build", "--isolation=chroot", f"--tag={BASE}", self.folder / "base")

    def build_image(self, service):
        distroless = re.search(r"^FROM (\S+) AS service$", DOCKERFILE.read_text(), re.MULTILINE).group(1)
        contexts = [f"build={self.build}", f"{distroless}=container-image://{BASE}"]
        flags = [f"--build-context={context}" for context in contexts]
        tag = f"localhost/{service}:test"
        self.buildah("build", "--isolation=chroot", f"--target={service}", f"--tag={tag}", *flags, ROOT)
        return tag

    def config(self, service):
        """What an image says of itself, as OCI has it."""
        return json.loads(self.buildah("inspect", "--type=image", self.tags[service]))["OCIv1"]["config"]

    @contextmanager
    def files(self, service):
        """The files of an image, in a folder."""
        container = self.buildah("from", self.tags[service])
        try:
            yield Path(self.buildah("mount", container))
        finally:
            self.buildah("rm", container)


@contextmanager
def running(images, service, documents, spec, container, folder, **own):
    """A process of the image in a container as the pod describes it. `own` are variables that differ."""
    with images.files(service) as root:
        (folder / "config.json").write_text(json.dumps(runtime_config(images, service, documents, spec, container, root, folder, own)))
        name = f"millrace-test-{os.getpid()}-{service}"
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(["runc", "run", "--bundle", folder, name], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            started = Container(name, process, folder / "log")
            try:
                wait_for("the container runs", lambda: started.is_over() or state(name).get("status") == "running", STOP)
                yield started
            finally:
                subprocess.run(["runc", "kill", name, "KILL"], capture_output=True)
                process.wait(STOP)
                subprocess.run(["runc", "delete", "--force", name], capture_output=True)


class Container:
    """A container that runs."""

    def __init__(self, name, process, log):
        self.name, self.process, self.log = name, process, log

    def is_over(self):
        return self.process.poll() is not None

    def pid(self):
        return state(self.name)["pid"]

    def status(self):
        """What the kernel says of its first process."""
        lines = Path(f"/proc/{self.pid()}/status").read_text().splitlines()
        return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}

    def descriptors(self):
        """How many files and connections it may open now, and at most."""
        lines = Path(f"/proc/{self.pid()}/limits").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith("Max open files")]
        return line.split()[3:5]

    def memory_limit(self):
        """In bytes, from the first or the second version of cgroups."""
        lines = Path(f"/proc/{self.pid()}/cgroup").read_text().splitlines()
        places = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
        if "memory" in places:
            return int(Path(f"/sys/fs/cgroup/memory{places['memory']}/memory.limit_in_bytes").read_text())
        return int(Path(f"/sys/fs/cgroup{places['']}/memory.max").read_text())

    def peak_memory(self):
        """The most memory that the process has used, in bytes."""
        return int(self.status()["VmHWM"].removesuffix(" kB")) << 10

    def stop(self, seconds):
        """Ends it as a kubelet does. Its exit code."""
        subprocess.run(["runc", "kill", self.name, "TERM"], check=True)
        return self.process.wait(seconds)


def state(name):
    told = subprocess.run(["runc", "state", name], capture_output=True, text=True)
    return json.loads(told.stdout) if told.returncode == 0 else {}


def runtime_config(images, service, documents, spec, container, root, folder, own):
    """The configuration of runc for a container of a pod."""
    pod, security = spec["securityContext"], container["securityContext"]
    variables = environment(documents, spec, container, folder) | own
    assert security["capabilities"] == {"drop": ["ALL"]} and pod["seccompProfile"] == {"type": "RuntimeDefault"}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": pod["runAsUser"], "gid": pod["runAsGroup"], "additionalGids": [pod.get("fsGroup", pod["runAsGroup"])]},
            "args": images.config(service)["Entrypoint"] + container.get("args", []),
            "env": [f"{name}={value}" for name, value in variables.items()],
            "cwd": "/",
            "capabilities": {},
            # containerd's soft limit, which the services raise to the hard one; that of this machine, if it has no more.
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": resource.getrlimit(resource.RLIMIT_NOFILE)[1]}],
            "noNewPrivileges": not security["allowPrivilegeEscalation"],
        },
        "root": {"path": str(root), "readonly": security["readOnlyRootFilesystem"]},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
            # The volumes of the pod have the same path inside and outside, as the variables name it.
            {"destination": str(folder), "type": "none", "source": str(folder), "options": ["rbind", "rw"]},
        ],
        "linux": {
            # The network of this machine, where the test asks the service.
            "namespaces": [{"type": one} for one in ("pid", "ipc", "uts", "mount")],
            "resources": {"memory": {"limit": size(container["resources"]["limits"]["memory"])}},
            "seccomp": permitted_calls(),
        },
    }


def permitted_calls():
    """The profile for a process without capabilities, in the form of runc."""
    profile = json.loads(SECCOMP.read_text())
    rules = [
        {"names": rule["names"], "action": rule["action"], "args": rule.get("args") or []}
        | ({"errnoRet": rule["errnoRet"]} if "errnoRet" in rule else {})
        for rule in profile["syscalls"]
        if not rule.get("includes", {}).get("caps") and ARCHITECTURE in rule.get("includes", {}).get("arches", [ARCHITECTURE])
    ]
    return {"defaultAction": profile["defaultAction"], "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules}
