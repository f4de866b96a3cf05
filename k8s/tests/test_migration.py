"""Another release can be applied while the Job of the last one is still there."""

import pytest
from rendered import IMAGES, K8S, OVERLAYS, config_maps, of_kind, only, render_changed

NAME = "migrate-release"
BY_OVERLAY = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.name)
CHANGES = {
    "image": {"images": [{"name": IMAGES["stream-agg"], "newTag": "next"}]},
    "variable": {"configMapGenerator": [{"name": "migrate", "behavior": "merge", "literals": ["LOG=debug"]}]},
    "rollups": {"configMapGenerator": [{"name": "rollups", "behavior": "replace", "literals": ["rollups.toml=#"]}]},
}


def job(documents):
    return only(documents, "Job", NAME)


def test_the_job_is_named_after_all_that_it_depends_on(documents):
    release = only(documents, "ConfigMap", NAME)
    assert job(documents)["metadata"]["name"] == release["metadata"]["name"]
    spec = job(documents)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    maps = config_maps(documents)
    variables = maps[container["envFrom"][0]["configMapRef"]["name"]]
    (volume,) = [one for one in spec["volumes"] if one["name"] == "rollups"]
    rollups = maps[volume["configMap"]["name"]]["rollups.toml"]
    assert release["data"] == variables | {"image": container["image"], "rollups": rollups}


@BY_OVERLAY
def test_the_same_release_has_the_same_job(overlay, tmp_path):
    first, again = (job(render_changed(tmp_path / name, overlay)) for name in ("first", "again"))
    assert first == again


@BY_OVERLAY
@pytest.mark.parametrize("change", CHANGES)
def test_a_release_that_differs_has_a_job_of_another_name(overlay, change, tmp_path):
    before = job(render_changed(tmp_path / "before", overlay))
    changed = render_changed(tmp_path / "after", overlay, **CHANGES[change], transformers=[K8S / "migration"])
    assert job(changed)["metadata"]["name"] != before["metadata"]["name"]


def test_a_migration_ends_by_itself(documents):
    spec = job(documents)["spec"]
    assert spec["activeDeadlineSeconds"] == 1800
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_the_job_of_an_earlier_release_goes_by_itself(documents):
    assert 0 < job(documents)["spec"]["ttlSecondsAfterFinished"] <= 3600


def test_a_wrong_configuration_is_not_tried_again(documents):
    (rule,) = job(documents)["spec"]["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": "migrate", "operator": "In", "values": [64]}


def test_argo_and_flux_make_a_job_of_the_same_name_again(documents):
    annotations = job(documents)["metadata"]["annotations"]
    assert annotations["argocd.argoproj.io/hook-delete-policy"] == "BeforeHookCreation"
    assert annotations["kustomize.toolkit.fluxcd.io/force"] == "enabled"
    assert of_kind(documents, "Job") == [job(documents)]
