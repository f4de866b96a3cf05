"""The units of systemd/ are understood to the letter, and run the services with variables, memory and time that fit."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from needs import needs_of
from rendered import IMAGES, K8S, program_of
from units import size

ROOT = K8S.parent
SYSTEMD = ROOT / "systemd"
UNITS = sorted(path.name for path in SYSTEMD.iterdir() if path.suffix in (".service", ".timer", ".target"))
SERVICES = [name for name in UNITS if name.endswith(".service")]
# Those that end by themselves.
COMMANDS = ["millrace-backup.service", "millrace-migrate.service"]
PAGE = ROOT / "docs/one-machine.md"


class Repeated(dict):
    """The lines of a section: systemd lets a name occur several times."""

    def __setitem__(self, name, value):
        # configparser sets each option first to a list of lines, later to a text.
        super().__setitem__(name, self[name] + value if isinstance(value, list) and name in self else value)


def unit(name, drop_in="millrace-.service.d/hardening.conf"):
    """{section: {name: [values]}} of a unit with what every unit has."""
    files = [SYSTEMD / name] + ([SYSTEMD / drop_in] if name.endswith(".service") else [])
    found = {}
    for file in files:
        parser = configparser.ConfigParser(dict_type=Repeated, strict=False, interpolation=None, comment_prefixes="#")
        parser.optionxform = str
        parser.read(file)
        for section in parser.sections():
            for option, text in parser[section].items():
                found.setdefault(section, {}).setdefault(option, []).extend(text.split("\n"))
    return found


def value(name, option, section="Service"):
    """The one value of an option."""
    (only,) = unit(name)[section][option]
    return only


@pytest.fixture
def root(tmp_path):
    """A folder that systemd takes for the root of a machine with our units, and with programs where they look for them."""
    units = tmp_path / "etc/systemd/system"
    shutil.copytree(SYSTEMD, units)
    (tmp_path / "usr/lib/systemd").mkdir(parents=True)
    shutil.copytree("/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    for name in SERVICES:
        for command in unit(name)["Service"]["ExecStart"] + unit(name)["Service"].get("ExecStartPre", []):
            program = tmp_path / command.split()[0].lstrip("/")
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text("#!/bin/sh\n")
            program.chmod(0o755)
    return tmp_path


def systemd_analyze(root, *arguments):
    done = subprocess.run(["systemd-analyze", f"--root={root}", *arguments], capture_output=True, text=True)
    return done.stdout + done.stderr


def test_systemd_has_nothing_to_say_about_the_units(root):
    # Its exit code is 0 even for a name that it does not know.
    assert systemd_analyze(root, "verify", *(root / "etc/systemd/system" / name for name in UNITS)) == ""


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_can_do_little_beyond_its_work(root, name):
    told = systemd_analyze(root, "security", "--offline=yes", "--threshold=20", name)
    assert float(re.search(r"exposure level for \S+: ([0-9.]+)", told).group(1)) <= 2.0, told


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in COMMANDS])
def test_a_service_always_comes_back_and_has_descriptors_and_memory(name):
    assert value(name, "Restart") == "always" and value(name, "StartLimitIntervalSec", "Unit") == "0"
    assert int(value(name, "LimitNOFILE")) >= 65536
    assert value(name, "MemoryMax")
    assert value(name, "WantedBy", "Install") == "millrace.target"


def test_no_program_of_ours_has_a_capability():
    for name in SERVICES:
        permitted = unit(name)["Service"]["CapabilityBoundingSet"]
        assert permitted == [""] or name == "millrace-clickhouse.service", name


def test_the_commands_are_not_repeated_for_ever():
    assert all(value(name, "Type") == "oneshot" for name in COMMANDS)
    assert value("millrace-migrate.service", "RestartPreventExitStatus") == "64"


def checked(name):
    """The variables that a unit gives to its program, and what the program needs with them."""
    given = {}
    for file in unit(name)["Service"]["EnvironmentFile"]:
        if file.startswith("/etc/millrace/secrets/"):
            given["CLICKHOUSE_PASSWORD"] = "placeholder"
        else:
            lines = (SYSTEMD / "etc" / Path(file).name).read_text().splitlines()
            given.update(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    command = value(name, "ExecStart").split()
    return given, needs_of([program_of(Path(command[0]).name), *command[1:]], given)


OURS = [f"millrace-{service}.service" for service in IMAGES]


@pytest.mark.parametrize("name", [*OURS, "millrace-migrate.service"])
def test_a_unit_sets_only_variables_that_the_service_reads(name):
    given, needed = checked(name)
    assert set(given) - set(needed.variables) == set()


@pytest.mark.parametrize("service", IMAGES)
def test_a_service_has_time_to_stop_and_the_memory_of_its_limits(service):
    name = f"millrace-{service}.service"
    _, needed = checked(name)
    assert needed.end_within(int(value(name, "TimeoutStopSec"))), needed.stop
    limit = re.sub("[MG]$", lambda found: f"{found.group()}i", value(name, "MemoryMax"))
    assert needed.fit_into(size(limit)), needed.memory


def test_the_aggregator_has_memory_for_all_partitions_of_the_topic():
    read = [checked(f"millrace-{name}.service")[1].variables["TOPIC_PARTITIONS"] for name in ("stream-agg", "migrate")]
    assert read[0] == read[1]


def test_the_edge_has_a_descriptor_for_each_connection_and_keeps_its_spool():
    name = "millrace-ingest.service"
    read = checked(name)[1].variables
    assert int(value(name, "LimitNOFILE")) >= int(read["MAX_CONNECTIONS"])
    assert read["SPOOL_DIR"] == f"/var/lib/{value(name, 'StateDirectory')}"


def test_only_clients_and_readers_reach_the_machine():
    for name in OURS:
        read = checked(name)[1].variables
        open_to_all = {variable for variable, address in read.items() if variable.endswith("_ADDR") and "127.0.0.1" not in address}
        assert open_to_all <= {"LISTEN_ADDR"}, name
    kafka = (SYSTEMD / "etc/kafka.properties").read_text()
    assert re.findall(r"PLAINTEXT://([^:]*):9092", kafka) == ["127.0.0.1", "127.0.0.1"]
    assert "<listen_host>127.0.0.1</listen_host>" in (SYSTEMD / "etc/clickhouse/one-machine.xml").read_text()


def test_kafka_has_a_record_on_the_disk_before_it_acknowledges_it_and_keeps_it_for_14_days():
    lines = (SYSTEMD / "etc/kafka.properties").read_text().splitlines()
    assert "log.flush.interval.messages=1" in lines and f"log.retention.hours={14 * 24}" in lines
    trial = (K8S / "components/kafka-single/server.properties").read_text().splitlines()
    missing = [line for line in trial if line not in lines and not line.startswith(("#", "advertised", "controller.quorum", "listeners", "log.dirs"))]
    assert [line for line in missing if line] == []


def test_clickhouse_fails_a_query_before_systemd_ends_the_server():
    most = int(re.search(r"<max_server_memory_usage>(\d+)<", (SYSTEMD / "etc/clickhouse/one-machine.xml").read_text()).group(1))
    limit = size(re.sub("G$", "Gi", value("millrace-clickhouse.service", "MemoryMax")))
    assert 0.8 * limit <= most <= 0.85 * limit


def test_the_page_installs_every_file():
    install = PAGE.read_text()
    for file in sorted(path.relative_to(ROOT) for path in SYSTEMD.rglob("*") if path.is_file()):
        named = str(file) in install or f"{file.parent}/*{file.suffix}" in install
        assert named, file
    for file in re.findall(r"(?<![\w/.])(?:systemd|k8s)/[\w./-]+\.\w+|k8s/components/backup/millrace-backup", install):
        assert (ROOT / file).exists(), file
    for name in SERVICES:
        for file in unit(name)["Service"].get("EnvironmentFile", []):
            assert file.startswith("/etc/millrace/secrets/") or (SYSTEMD / "etc" / Path(file).name).is_file()
