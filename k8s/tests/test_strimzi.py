"""Kafka by Strimzi loses no record with a zone, has the topic that `migrate` would make, and gives each service few rights.

The fields were compared with Strimzi's definitions by hand; no package has them as types. Only a cluster shows the rest.
"""

import pytest
from rendered import config_maps, containers, label, of_kind, only, render_variant

DAY = 24 * 3600


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    return render_variant("kafka-strimzi", tmp_path_factory.mktemp("variant"))


@pytest.fixture(scope="module")
def kafka(documents):
    return only(documents, "Kafka", "millrace")["spec"]["kafka"]


def test_three_nodes_are_on_three_zones(documents, kafka):
    pool = only(documents, "KafkaNodePool", "nodes")
    (spread,) = pool["spec"]["template"]["pod"]["topologySpreadConstraints"]
    assert pool["spec"]["replicas"] == 3 and set(pool["spec"]["roles"]) == {"broker", "controller"}
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("topology.kubernetes.io/zone", "DoNotSchedule")
    assert kafka["rack"] == {"topologyKey": "topology.kubernetes.io/zone"}
    assert all(volume["deleteClaim"] is False for volume in pool["spec"]["storage"]["volumes"])


def test_events_and_intents_are_on_two_brokers_at_least_when_they_are_acknowledged(documents, kafka):
    topic = only(documents, "KafkaTopic", "events")["spec"]
    for settings, replicas in ((topic["config"], topic["replicas"]), (kafka["config"], kafka["config"]["offsets.topic.replication.factor"])):
        assert (replicas, settings["min.insync.replicas"]) == (3, 2)
        assert settings["unclean.leader.election.enable"] is False
    assert kafka["config"]["auto.create.topics.enable"] is False


def test_the_topic_is_what_migrate_would_make_and_stays_for_14_days(documents):
    topic = only(documents, "KafkaTopic", "events")["spec"]
    migrate = only(documents, "ConfigMap", "migrate")["data"]
    assert topic["partitions"] == int(migrate["TOPIC_PARTITIONS"]) and topic["replicas"] == int(migrate["TOPIC_REPLICATION"])
    assert topic["config"]["message.timestamp.type"] == "LogAppendTime"
    assert topic["config"]["retention.ms"] >= 14 * DAY * 1000 and topic["config"]["cleanup.policy"] == "delete"


def test_a_release_deletes_neither_kafka_nor_the_topic(documents):
    for kind, name in (("Kafka", "millrace"), ("KafkaTopic", "events")):
        annotations = only(documents, kind, name)["metadata"]["annotations"]
        assert annotations["argocd.argoproj.io/sync-options"] == "Prune=false,Delete=false"
        assert annotations["kustomize.toolkit.fluxcd.io/prune"] == "disabled"


def test_the_drain_cleaner_decides_when_a_broker_leaves(kafka):
    assert kafka["template"]["podDisruptionBudget"] == {"maxUnavailable": 0}


def test_each_service_logs_in_as_itself_over_tls(documents, kafka):
    (listener,) = kafka["listeners"]
    assert listener["tls"] is True and listener["authentication"] == {"type": "scram-sha-512"}
    users = {user["metadata"]["name"] for user in of_kind(documents, "KafkaUser")}
    seen = set()
    for workload, spec, container in containers(documents):
        given = config_maps(documents)[container["envFrom"][0]["configMapRef"]["name"]]
        if "KAFKA_BROKERS" not in given:
            continue
        name = label(workload)
        seen.add(name)
        assert given["KAFKA_BROKERS"] == f"millrace-kafka-bootstrap:{listener['port']}"
        assert given["KAFKA_OPT_security.protocol"] == "SASL_SSL" and given["KAFKA_OPT_sasl.mechanism"] == "SCRAM-SHA-512"
        assert given["KAFKA_OPT_sasl.username"] == name
        (password,) = [one["valueFrom"]["secretKeyRef"] for one in container["env"] if one["name"] == "KAFKA_OPT_sasl.password"]
        assert password == {"name": name, "key": "password"}
        (mount,) = [one for one in container["volumeMounts"] if one["name"] == "kafka-ca"]
        assert given["KAFKA_OPT_ssl.ca.location"] == f"{mount['mountPath']}/ca.crt"
        (volume,) = [one for one in spec["volumes"] if one["name"] == "kafka-ca"]
        assert volume["secret"]["secretName"] == "millrace-cluster-ca-cert"
    assert seen == users


def test_only_the_edge_writes_and_only_the_aggregator_commits(documents, kafka):
    assert kafka["authorization"] == {"type": "simple"}
    rights = {
        (user["metadata"]["name"], rule["resource"]["type"], rule["resource"]["name"], operation)
        for user in of_kind(documents, "KafkaUser")
        for rule in user["spec"]["authorization"]["acls"]
        for operation in rule["operations"]
    }
    assert {right[0] for right in rights if right[3] == "Write"} == {"ingest"}
    assert {right[:3] for right in rights if right[1] == "group"} == {("stream-agg", "group", "stream-agg")}
    assert {right[2] for right in rights if right[1] == "topic"} == {"events"}
    assert not [right for right in rights if right[3] in ("All", "Alter", "Delete")]
