"""What only you can name has one place each, and a release that still has a placeholder is not applied."""

import re
import shutil
import subprocess

import pytest
import yaml
from rendered import COMPONENTS, IMAGES, K8S, OVERLAYS, render, render_changed

PAGE = K8S.parent / "docs/kubernetes.md"
DIGEST = f"sha256:{'5' * 64}"
# Everything that docs/kubernetes.md says to edit, and to what.
EDITS = {
    "images/kustomization.yaml": {r"registry\.example": "registry.internal", r"sha256:0+[1-9]": DIGEST},
    "components/monitoring/kustomization.yaml": {r"git\.example": "git.internal"},
    "components/cert-manager/certificate.yaml": {r"millrace\.example": "events.internal"},
    "components/gateway-api/route.yaml": {r"millrace\.example": "events.internal"},
    "components/ingress/ingress.yaml": {r"millrace\.example": "events.internal"},
}


def guarded_apply():
    """The lines of the page that apply a release."""
    (lines,) = re.findall(r"^(! grep .*(?:\n.+)*?)\n```", PAGE.read_text(), re.MULTILINE)
    return lines


def applied(documents, folder):
    """What the page's lines apply, with a kubectl that only says so; None if they refuse. And what they print."""
    (folder / "release.yaml").write_text(yaml.safe_dump_all(documents))
    (folder / "kubectl").write_text("#!/bin/sh\necho applied $*\n")
    (folder / "kubectl").chmod(0o755)
    script = f"PATH={folder}:$PATH; {guarded_apply()}"
    done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True)
    return done.returncode == 0 and "applied apply -f release.yaml" in done.stdout, done.stdout


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
def test_a_release_with_placeholders_is_not_applied_and_they_are_named(overlay, tmp_path):
    done, printed = applied(render(overlay), tmp_path)
    assert not done
    assert all(f"{image}@" in printed for image in IMAGES.values()), printed


def edited(ours):
    """Copies the manifests into the new folder `ours` and makes the edits of the page."""
    shutil.copytree(K8S, ours, ignore=shutil.ignore_patterns("cluster", "tests"))
    for name, edits in EDITS.items():
        text = (ours / name).read_text()
        for old, new in edits.items():
            assert re.search(old, text), (name, old)
            text = re.sub(old, new, text)
        (ours / name).write_text(text)


def test_after_one_edit_for_each_no_placeholder_is_left(tmp_path):
    ours = tmp_path / "k8s"
    edited(ours)
    releases = [render(folder) for folder in (*ours.glob("overlays/*"), ours / "routines/send-spool")]
    for variant, names in COMPONENTS.items():
        components = [ours / "components" / name for name in names]
        releases.append(render_changed(ours / "variants" / variant, ours / "base", components=components))
    for documents in releases:
        done, printed = applied(documents, tmp_path)
        assert done, printed
        assert "sha256:0000" not in yaml.safe_dump_all(documents)
