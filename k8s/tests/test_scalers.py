"""A scaler and a manifest never fight over the number of pods, and no scaler takes away a pod that holds events."""

import re
import subprocess

import pytest
import yaml
from metrics import read_by, unknown
from rendered import config_maps, of_kind, only, render_variant


def scalers(documents):
    """The scalers of each workload, those of KEDA as the HorizontalPodAutoscaler that it makes of them."""
    found = {}
    for scaler in of_kind(documents, "HorizontalPodAutoscaler", "ScaledObject"):
        spec = scaler["spec"] if scaler["kind"] == "HorizontalPodAutoscaler" else made_by_keda(scaler["spec"])
        found[spec["scaleTargetRef"]["name"]] = spec
    return found


def made_by_keda(spec):
    return spec["advanced"]["horizontalPodAutoscalerConfig"] | {
        "scaleTargetRef": spec["scaleTargetRef"],
        "minReplicas": spec["minReplicaCount"],
        "maxReplicas": spec["maxReplicaCount"],
    }


def test_a_scaler_finds_its_workload_and_owns_the_number_of_its_pods(documents):
    for name, scaler in scalers(documents).items():
        workload = only(documents, scaler["scaleTargetRef"]["kind"], name)
        assert "replicas" not in workload["spec"], name


def test_a_workload_has_one_scaler_at_most(documents):
    assert len(scalers(documents)) == len(of_kind(documents, "HorizontalPodAutoscaler", "ScaledObject"))


def test_a_scaler_always_leaves_two_pods(documents):
    assert all(scaler["minReplicas"] >= 2 for scaler in scalers(documents).values())


def test_there_are_no_more_aggregators_than_partitions(documents):
    migrate = next(data for data in config_maps(documents).values() if "TOPIC_PARTITIONS" in data)
    partitions = int(migrate["TOPIC_PARTITIONS"])
    for scaler in (one for name, one in scalers(documents).items() if name == "stream-agg"):
        assert scaler["maxReplicas"] == partitions


def test_aggregators_leave_one_at_a_time(documents):
    for scaler in (one for name, one in scalers(documents).items() if name == "stream-agg"):
        assert scaler["behavior"]["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 600}]


def test_no_scaler_takes_away_an_edge_with_a_spool(documents):
    edge = scalers(documents).get("ingest")
    if edge and edge["scaleTargetRef"]["kind"] == "StatefulSet":
        assert edge["behavior"]["scaleDown"] == {"selectPolicy": "Disabled"}


@pytest.fixture(scope="module")
def by_lag(tmp_path_factory):
    return only(render_variant("keda", tmp_path_factory.mktemp("variant")), "ScaledObject", "stream-agg")


def test_without_an_answer_of_prometheus_the_number_of_aggregators_stays(by_lag):
    assert by_lag["spec"]["fallback"]["behavior"] == "currentReplicas"
    # KEDA falls back for such metrics only.
    assert by_lag["spec"]["triggers"][0]["metricType"] == "AverageValue"


def test_the_lag_is_read_from_metrics_that_there_are_and_of_the_own_namespace(by_lag):
    query = by_lag["spec"]["triggers"][0]["metadata"]["query"]
    assert list(unknown(query)) == [] and {"stream_agg_lag_records", "stream_agg_records_total"} < set(dict(read_by(query)))
    assert set(re.findall(r'namespace="([^"]*)"', query)) == {by_lag["metadata"]["namespace"]}


# Prometheus' notation for tests: each of four pods has a lag, and all together commit records at a pace.
@pytest.mark.parametrize("lag, pace, pods", [(3_000, 100, 4), (6_000, 100, 8), (0, 100, 0)])
def test_thirty_seconds_of_lag_keep_the_number_of_aggregators(by_lag, tmp_path, lag, pace, pods):
    trigger = by_lag["spec"]["triggers"][0]["metadata"]
    series = {"up": "1x30", "stream_agg_lag_records": f"{lag // 4}x30", "stream_agg_records_total": f"0+{pace * 60 // 4}x30"}
    labels = 'namespace="millrace", job="stream-agg"'
    test = {
        "rule_files": [],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": f'{name}{{{labels}, pod="stream-agg-{pod}"}}', "values": values}
                    for name, values in series.items()
                    for pod in range(4)
                ],
                "promql_expr_test": [
                    {
                        "expr": f"ceil(({trigger['query']}) / {trigger['threshold']})",
                        "eval_time": "20m",
                        "exp_samples": [{"labels": "{}", "value": pods}],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    done = subprocess.run(["promtool", "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
