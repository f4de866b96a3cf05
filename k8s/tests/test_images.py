"""The Dockerfile builds an image for each service, and compose.yaml runs them with variables that they read.

No image is built here: k8s/images/tests builds and runs them.
"""

import fnmatch
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from needs import needs_of
from rendered import IMAGES, K8S, program_of
from units import seconds, size

ROOT = K8S.parent
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
OURS = {name: service for name, service in COMPOSE.items() if "build" in service}
BY_SERVICE = pytest.mark.parametrize("service", IMAGES)
BY_CONTAINER = pytest.mark.parametrize("name", OURS)
# Units of compose: `480m`.
COMPOSE_UNITS = {"m": "Mi", "g": "Gi"}


def stages():
    """The instructions of each stage of the Dockerfile: (word, rest)."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    found = {}
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = [("FROM", base)]
        elif word and not word.startswith("#"):
            found[name].append((word, rest))
    return found


def image(service):
    """All instructions that an image is made of, those of its base among ours first."""
    built = stages()
    instructions = built[service]
    base = instructions[0][1]
    return (image(base) if base in built else []) + instructions


def checked(service, variables, *arguments):
    """What the program of a service needs with these variables."""
    return needs_of([program_of(service), *arguments], variables)


REQUIRED = {"KAFKA_BROKERS": "kafka:9092", "CLICKHOUSE_URL": "http://clickhouse:8123"}


@BY_SERVICE
def test_an_image_runs_its_own_program_without_a_shell_and_not_as_root(service):
    words = dict(image(service))
    assert json.loads(words["ENTRYPOINT"]) == [f"/usr/local/bin/{service}"]
    assert words["USER"] == "65532:65532" and words["HEALTHCHECK"] == "NONE"
    assert words["COPY"].split() == ["--from=build", f"/out/{service}", f"/usr/local/bin/{service}"]
    assert "RUN" not in words and "CMD" not in words


@BY_SERVICE
def test_an_image_exposes_the_ports_that_the_service_listens_on(service):
    exposed = {int(port) for port in dict(image(service))["EXPOSE"].split()}
    assert exposed == checked(service, REQUIRED).listens


@BY_SERVICE
def test_an_image_has_the_labels_of_oci(service):
    labels = " ".join(rest for word, rest in image(service) if word == "LABEL")
    for name in ("title", "description", "licenses", "version", "revision", "source", "vendor"):
        assert f"org.opencontainers.image.{name}=" in labels, name


def test_hadolint_has_nothing_to_say_about_the_dockerfile():
    # Beside the interpreter, as pip installs it.
    done = subprocess.run([Path(sys.executable).parent / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_every_base_from_elsewhere_is_named_by_digest():
    built = stages()
    for name, instructions in built.items():
        base = instructions[0][1]
        assert base in built or re.fullmatch(r"[^@]+@sha256:[0-9a-f]{64}", base), f"{name}: {base}"


def test_dependencies_are_built_with_the_packages_of_the_programs():
    runs = [rest for word, rest in stages()["build"] if word == "RUN"]
    cook, build = (re.findall(r"--package (\S+)", run) for run in runs)
    assert cook == build == list(IMAGES)


def test_the_compiler_of_the_image_is_the_one_of_the_workspace():
    channel = re.search(r'channel = "(.*)"', (ROOT / "rust-toolchain.toml").read_text()).group(1)
    chef = stages()["chef"]
    assert chef[0][1].startswith(f"rust:{channel}-")
    assert dict(chef)["ENV"] == f"RUSTUP_TOOLCHAIN={channel}"


def in_context(path):
    """Whether .dockerignore leaves a path in the build: the last line that matches it or a folder above it decides."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    parts = Path(path).parts
    above = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    last = [rule for rule in rules if any(matches(one, rule.removeprefix("!")) for one in above)][-1]
    return last.startswith("!")


def matches(path, pattern):
    return fnmatch.fnmatch(path, pattern) or (pattern.startswith("**/") and path.split("/")[-1] == pattern[3:])


def test_the_build_gets_what_it_compiles_and_no_data():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    members = re.search(r"members = \[(.*)\]", (ROOT / "Cargo.toml").read_text()).group(1)
    needed = [path for path in tracked if re.fullmatch(r"(schemas|runtime|ingest|stream-agg|query-api)/(src|sql|page/dist)/.*", path)]
    needed += ["Cargo.lock", "rust-toolchain.toml", "schemas/rollups.toml"]
    needed += [f"{member}/Cargo.toml" for member in re.findall(r'"([^"]+)"', members)]
    needed = [path for path in needed if "tests" not in Path(path).parts]
    assert [path for path in needed if not in_context(path)] == []
    assert [path for path in ("target/debug/ingest", ".cache/kafka", ".git/config", "docs/api.md", "k8s/base/ingest.yaml") if in_context(path)] == []


@BY_CONTAINER
def test_compose_sets_only_variables_that_the_service_reads(name):
    service = OURS[name]
    read = checked(service["build"]["target"], service["environment"], *service.get("command", []))
    assert set(service["environment"]) - set(read.variables) == set()


@BY_CONTAINER
def test_compose_publishes_ports_of_the_service_and_only_to_this_machine(name):
    service = OURS[name]
    read = checked(service["build"]["target"], service["environment"])
    for published in service.get("ports", []):
        address, _, port = published.rsplit(":", 2)
        assert address == "127.0.0.1" and int(port) in read.listens


@BY_CONTAINER
def test_a_container_is_as_restricted_as_a_pod(name):
    service = OURS[name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@BY_CONTAINER
def test_a_container_has_memory_and_time_to_stop(name):
    service = OURS[name]
    needed = checked(service["build"]["target"], service["environment"], *service.get("command", []))
    limit = re.sub("[mg]$", lambda unit: COMPOSE_UNITS[unit.group()], service["mem_limit"])
    assert needed.fit_into(size(limit)), needed.memory
    assert name == "migrate" or needed.end_within(seconds(service["stop_grace_period"])), needed.stop


def test_compose_gives_clickhouse_the_passwords_that_the_services_send():
    for service in OURS.values():
        variables = service["environment"]
        if "CLICKHOUSE_USER" in variables:
            given = COMPOSE["clickhouse"]["environment"][f"{variables['CLICKHOUSE_USER'].upper()}_PASSWORD"]
            assert given == variables["CLICKHOUSE_PASSWORD"]


def test_compose_runs_the_servers_of_the_overlay_dev():
    for name in ("kafka", "clickhouse"):
        manifest = (K8S / f"components/{name}-single/{name}.yaml").read_text()
        assert f" {COMPOSE[name]['image']}\n" in manifest
        files = [volume.split(":")[0] for volume in COMPOSE[name]["volumes"] if volume.startswith("./")]
        assert files and all((ROOT / file).is_file() for file in files)
