"""A scaler and a manifest never fight over the number of pods, and no scaler takes away a pod that holds events."""

from rendered import config_maps, of_kind, only


def scalers(documents):
    return {scaler["spec"]["scaleTargetRef"]["name"]: scaler["spec"] for scaler in of_kind(documents, "HorizontalPodAutoscaler")}


def test_a_scaler_finds_its_workload_and_owns_the_number_of_its_pods(documents):
    for name, scaler in scalers(documents).items():
        workload = only(documents, scaler["scaleTargetRef"]["kind"], name)
        assert "replicas" not in workload["spec"], name


def test_a_workload_has_one_scaler_at_most(documents):
    assert len(scalers(documents)) == len(of_kind(documents, "HorizontalPodAutoscaler"))


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
