"""checkov has nothing to say about what the overlays render and about the Dockerfile, but for what is listed here.

Needs CHECKOV, the folder of its environment; `./dev test --full` makes it.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from rendered import K8S, OVERLAYS, render

NO_CPU_LIMIT = "CKV_K8S_11"  # throttling would turn a burst into latency; the request guarantees a fair share
PASSWORD_AS_VARIABLE = "CKV_K8S_35"  # the services read CLICKHOUSE_PASSWORD from their environment
# dev runs Kafka and ClickHouse with images of others, to try Millrace.
TO_TRY = {
    "CKV_K8S_8",  # without a liveness probe: a restart would lose a slow start, and nobody relies on them
    "CKV_K8S_15",  # by a version, so there is nothing to pull again
    "CKV_K8S_40",  # with the users that the images have
    "CKV_K8S_43",  # without a digest, so that they come for every architecture
    "CKV2_K8S_6",  # without network policies, which a network of a laptop seldom enforces
}
LEFT = {"dev": {NO_CPU_LIMIT, PASSWORD_AS_VARIABLE} | TO_TRY, "prod": {NO_CPU_LIMIT, PASSWORD_AS_VARIABLE}}


def findings(folder):
    """The checks of checkov that files in a folder do not pass."""
    checkov = Path(os.environ["CHECKOV"]) / "bin/python"
    flags = ["--framework", "kubernetes", "dockerfile", "--compact", "--quiet", "--skip-download", "--soft-fail", "-o", "json"]
    done = subprocess.run([checkov, "-m", "checkov.main", "-d", folder, *flags], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)
    reports = reports if isinstance(reports, list) else [reports]
    assert all(report["summary"]["passed"] for report in reports)
    return {check["check_id"] for report in reports for check in report["results"]["failed_checks"]}


@pytest.mark.long
@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_checkov_finds_nothing_in_an_overlay_that_has_no_reason_here(overlay, tmp_path):
    (tmp_path / "release.yaml").write_text(yaml.safe_dump_all(render(overlay)))
    assert findings(tmp_path) == LEFT[overlay.name]


@pytest.mark.long
def test_checkov_finds_nothing_in_the_dockerfile(tmp_path):
    shutil.copy(K8S.parent / "Dockerfile", tmp_path)
    assert findings(tmp_path) == set()
