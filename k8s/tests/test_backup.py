"""A backup of running tables can be restored into an empty server, and nothing is missing or counted twice afterwards."""

import subprocess
import threading
from contextlib import ExitStack

import kubernetes_validate
import pytest
from processes import ask, end, wait_for
from rendered import K8S, files_of, of_kind, only, render_changed, render_variant
from stack import Stack

DEADLINE = 240
PROGRAM = K8S / "components/backup/millrace-backup"
# One request while the backup runs, again and again.
REQUEST = b"\n".join(b'{"event":"click","user_id":"user-%d"}' % user for user in range(100))


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    return render_variant("backup", tmp_path_factory.mktemp("variant"))


@pytest.fixture(scope="module")
def job(documents):
    return only(documents, "CronJob", "backup")["spec"]


def test_backups_do_not_overlap_and_end(job):
    assert job["concurrencyPolicy"] == "Forbid"
    assert job["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 24 * 3600
    assert job["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_a_backup_is_as_restricted_as_the_namespace_asks(job):
    spec = job["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["securityContext"]["runAsNonRoot"] and spec["automountServiceAccountToken"] is False
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] and security["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("version", ["1.34", "1.36"])
def test_the_job_is_valid_to_the_letter(documents, version):
    kubernetes_validate.validate(only(documents, "CronJob", "backup"), version, strict=True)


def test_the_client_is_that_of_the_server(documents, job):
    (client,) = job["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    (server,) = only(documents, "StatefulSet", "clickhouse")["spec"]["template"]["spec"]["containers"]
    assert client["image"] == server["image"]


def test_the_job_runs_the_program_and_the_server_knows_its_user(documents, job):
    spec = job["jobTemplate"]["spec"]["template"]["spec"]
    (volume,) = spec["volumes"]
    assert files_of(documents, volume) == {"millrace-backup": PROGRAM.read_text()}
    assert volume["configMap"]["defaultMode"] & 0o111
    pod = only(documents, "StatefulSet", "clickhouse")["spec"]["template"]["spec"]
    assert set(files_of(documents, pod["volumes"][0])) == {"config.xml", "users.xml", "config.d/backup.xml", "users.d/backup.xml"}
    secret = {"secretKeyRef": {"name": "clickhouse-backup", "key": "password"}}
    assert secret == spec["containers"][0]["env"][0]["valueFrom"] == pod["containers"][0]["env"][-1]["valueFrom"]


def test_a_release_does_not_delete_backups(documents):
    claim = only(documents, "PersistentVolumeClaim", "clickhouse-backups")
    assert claim["metadata"]["annotations"] == {
        "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
        "kustomize.toolkit.fluxcd.io/prune": "disabled",
    }


def test_a_backup_reaches_clickhouse_and_nothing_else(tmp_path):
    policies = [one["spec"] for one in of_kind(render_variant("backup-of-yours", tmp_path), "NetworkPolicy")]
    of_backup = [one for one in policies if one["podSelector"].get("matchLabels") == {"app.kubernetes.io/name": "backup"}]
    assert [one["egress"] for one in of_backup] == [[{"ports": [{"protocol": "TCP", "port": 9000}]}]]


@pytest.fixture
def dev(tmp_path):
    secret = {"name": "clickhouse-backup", "literals": ["password=dev-only-backup"]}
    documents = render_changed(
        tmp_path / "variant",
        K8S / "overlays/dev",
        components=[K8S / "components/backup"],
        secretGenerator=[secret],
        namespace="millrace-dev",
    )
    with ExitStack() as stack:
        started = Stack(tmp_path, documents, stack)
        started.start_services()
        started.server = started.start_clickhouse()
        started.start_kafka()
        yield started
        started.end_services()


def clickhouse(dev, statement):
    """What the administrator of the server is answered."""
    status, text = ask(dev.clickhouse, "/", statement.encode())
    assert status == 200, text
    return text.strip()


def post(dev):
    status, report = ask(dev.ports["ingest"][0], "/v1/events", REQUEST)
    assert status == 200 and '"accepted":100' in report, report


def are_counted(dev, requests):
    return clickhouse(dev, "SELECT sum(lines) FROM millrace.ledger") == str(100 * requests)


# A client of ClickHouse that asks over HTTP, because the library has no other. Before each backup it waits for another
# batch, so that the tables are copied at moments that differ.
CLIENT = """#!/bin/sh
ask() { curl -sS --fail-with-body "http://$1@$CLICKHOUSE_HOST/" --data-binary "$2"; }
records() { ask default: 'SELECT count() FROM millrace.ledger'; }
case $2 in
  BACKUP*)
    before=$(records)
    until [ "$(records)" -gt "$before" ]; do sleep 0.2; done ;;
esac
ask "$CLICKHOUSE_USER:$CLICKHOUSE_PASSWORD" "$2"
"""


def back_up(dev):
    """Runs the program while aggregators insert. The name of the backup."""
    client = dev.folder / "bin/clickhouse-client"
    client.parent.mkdir()
    client.write_text(CLIENT)
    client.chmod(0o755)
    variables = {
        "PATH": f"{client.parent}:/usr/bin:/bin",
        "CLICKHOUSE_HOST": f"127.0.0.1:{dev.clickhouse}",
        "CLICKHOUSE_USER": "backup",
        "CLICKHOUSE_PASSWORD": "dev-only-backup",
    }
    done = subprocess.run([PROGRAM], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()[1]


def attempt(dev, name, *arguments):
    """A command of the program and with the variables of a service."""
    command, variables = dev.commands[name]
    return subprocess.run([command[0], *arguments], env=variables, capture_output=True, text=True, timeout=2 * DEADLINE)


def run(dev, name, *arguments):
    """The output of such a command, which must succeed."""
    done = attempt(dev, name, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def adopt(dev):
    """Whether the partitions were adopted. An aggregator that stopped stays a member of its group until its session ends."""
    done = attempt(dev, "stream-agg", "adopt", *map(str, range(8)))
    assert done.returncode == 0 or "has members" in done.stderr, done.stdout + done.stderr
    return done.returncode == 0


@pytest.mark.long
def test_a_backup_that_was_made_under_load_is_made_whole_by_what_kafka_has(dev):
    assert dev.services["migrate"].wait(DEADLINE) == 0, (dev.folder / "migrate.log").read_text()
    wait_for("all are ready", dev.are_all_ready, DEADLINE)
    sent = 20
    for _ in range(sent):
        post(dev)
    wait_for("events are counted", lambda: are_counted(dev, sent), DEADLINE)
    is_over = threading.Event()
    during = []

    def keep_posting():
        while not is_over.is_set():
            post(dev)
            during.append(1)

    sender = threading.Thread(target=keep_posting)
    sender.start()
    # Batches are inserted while the tables are copied, so wait until the aggregator is in the midst of them.
    wait_for("batches under way", lambda: len(during) > 50, DEADLINE)
    name = back_up(dev)
    is_over.set()
    sender.join()
    post(dev)
    sent += len(during) + 1
    wait_for("events are counted", lambda: are_counted(dev, sent), DEADLINE)
    before = clickhouse(dev, "SELECT count(), uniqExact(user_id), sum(cityHash64(event_id)) FROM millrace.events")

    for service in ("stream-agg", "query-api"):
        end(dev.services[service])
    end(dev.server)
    dev.start_clickhouse("empty")
    wait_for("the empty server answers", lambda: ask(dev.clickhouse, "/ping")[0] == 200, DEADLINE)
    clickhouse(dev, f"RESTORE DATABASE millrace FROM File('{name}/tables')")
    clickhouse(dev, f"RESTORE TABLE millrace.ledger FROM File('{name}/ledger')")
    assert not are_counted(dev, sent), "the backup has everything, so this proves nothing"
    run(dev, "migrate", "migrate")
    wait_for("the partitions are adopted", lambda: adopt(dev), DEADLINE)
    for service in ("stream-agg", "query-api"):
        dev.start_service(service)
    wait_for("all events are counted again", lambda: are_counted(dev, sent), DEADLINE)
    assert "missing=0 duplicate=0" in run(dev, "stream-agg", "audit")
    assert clickhouse(dev, "SELECT count(), uniqExact(user_id), sum(cityHash64(event_id)) FROM millrace.events") == before
