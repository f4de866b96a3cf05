"""Alerts fire when they must and stay silent otherwise, name metrics that there are, and lead to a runbook.

Needs promtool, which is part of Prometheus.
"""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from metrics import read_by, unknown
from rendered import K8S, of_kind, render_variant

ROOT = K8S.parent
RUNBOOKS = ROOT / "docs/runbooks"
CASES = yaml.safe_load((Path(__file__).parent / "alerts.yaml").read_text())
# Pages that are routines, not alerts.
ROUTINES = {"README", "scale-down-edges"}
SECTIONS = ["Means", "Look", "Do"]


@pytest.fixture(scope="module")
def monitoring(tmp_path_factory):
    return render_variant("monitoring", tmp_path_factory.mktemp("variant"))


@pytest.fixture(scope="module")
def groups(monitoring):
    return [group for rules in of_kind(monitoring, "PrometheusRule") for group in rules["spec"]["groups"]]


@pytest.fixture(scope="module")
def alerts(groups):
    return [rule for group in groups for rule in group["rules"]]


def promtool(*arguments, folder):
    done = subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_the_rules(groups, tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    promtool("check", "rules", "rules.yaml", folder=tmp_path)


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_and_stays_silent(alert, alerts, tmp_path):
    # Without the other rules, which cost time.
    rules = [rule for rule in alerts if rule["alert"] == alert]
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [as_promtool_test(alert, case, rules) for case in CASES[alert]],
    }
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": rules}]}))
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    promtool("test", "rules", "test.yaml", folder=tmp_path)


def as_promtool_test(alert, case, rules):
    expected = [
        {"exp_labels": {"severity": rules[0]["labels"]["severity"]} | labels, "exp_annotations": annotations(rules, labels)}
        for labels in case["raises"]
    ]
    return {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case["series"].items()],
        "alert_rule_test": [{"eval_time": case["at"], "alertname": alert, "exp_alerts": expected}],
    }


def annotations(rules, labels):
    """Those of the rule with the severity, if an alert has several."""
    wanted = labels.get("severity", rules[0]["labels"]["severity"])
    return next(rule["annotations"] for rule in rules if rule["labels"]["severity"] == wanted)


def test_every_alert_has_a_case_that_raises_it_and_one_that_does_not(alerts):
    assert {rule["alert"] for rule in alerts} == set(CASES)
    for rule in alerts:
        raised = [one for case in CASES[rule["alert"]] for one in case["raises"]]
        severities = {one.get("severity", rule["labels"]["severity"]) for one in raised}
        assert rule["labels"]["severity"] in severities, rule["alert"]
        assert any(case["raises"] == [] for case in CASES[rule["alert"]]), rule["alert"]


def test_an_alert_has_a_severity_and_a_summary(alerts):
    for rule in alerts:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]


def page_of(alert):
    return re.sub(r"(?<!^)(?=[A-Z])", "-", alert.removeprefix("Millrace")).lower()


def test_every_alert_leads_to_its_runbook(alerts):
    for rule in alerts:
        page = RUNBOOKS / f"{page_of(rule['alert'])}.md"
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{page.name}")
        headings = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
        assert headings == SECTIONS, page.name


def test_every_runbook_has_its_alert_and_is_in_the_index(alerts):
    pages = {path.stem for path in RUNBOOKS.glob("*.md")}
    assert pages - ROUTINES == {page_of(rule["alert"]) for rule in alerts}
    index = (RUNBOOKS / "README.md").read_text()
    for page in pages - {"README"}:
        assert f"({page}.md)" in index, page


def test_prometheus_finds_the_port_of_the_metrics(monitoring):
    (monitor,) = of_kind(monitoring, "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (rule,) = monitor["spec"]["selector"]["matchExpressions"]
    for workload in of_kind(monitoring, "Deployment", "StatefulSet"):
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert labels[rule["key"]] in rule["values"]
        ports = [port["name"] for port in workload["spec"]["template"]["spec"]["containers"][0]["ports"]]
        assert endpoint["port"] in ports and endpoint["path"] == "/metrics"


def test_every_metric_of_an_alert_is_exported(alerts):
    for rule in alerts:
        assert list(unknown(rule["expr"])) == [], rule["alert"]
        assert list(read_by(rule["expr"])), rule["alert"]


@pytest.mark.parametrize(
    "expression, found",
    [
        ('sum by (namespace) (rate(ingest_requests_total{code=~"5.."}[5m])) > 0', []),
        ('rate(ingest_request_total{code=~"5.."}[5m]) > 0', ["ingest_request_total"]),
        ('rate(ingest_requests_total{status="500"}[5m]) > 0', ["ingest_requests_total{status}"]),
        ("histogram_quantile(0.9, sum by (le) (rate(stream_agg_insert_seconds_bucket[5m])))", []),
        ("rate(stream_agg_insert_seconds[5m])", ["stream_agg_insert_seconds"]),
        ("ingest_kafka_up == 0 and on (pod) kube_nothing", ["kube_nothing"]),
        ("sum by (cause) (rate(ingest_shed_total[5m]))", ["by cause"]),
    ],
)
def test_a_metric_or_label_that_nothing_exports_is_named(expression, found):
    assert list(unknown(expression)) == found
