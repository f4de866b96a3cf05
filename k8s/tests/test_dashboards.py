"""Every panel of a dashboard reads metrics that there are, and says what it shows."""

import itertools
import json
import subprocess

import pytest
import yaml
from metrics import read_by, unknown
from rendered import K8S, of_kind, render_variant

BOARDS = sorted((K8S / "components/dashboards").glob("*.json"))


@pytest.fixture(params=BOARDS, ids=lambda path: path.stem)
def board(request):
    return json.loads(request.param.read_text())


def panels(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions(board):
    """What Prometheus is asked, with the variables of Grafana filled in."""
    asked = [target["expr"] for panel in panels(board) for target in panel["targets"]]
    asked += [one["expr"] for one in board["annotations"]["list"]]
    return [expr.replace("$__rate_interval", "5m").replace("$namespace", "m") for expr in asked]


def test_every_metric_of_a_panel_is_exported(board):
    for expression in expressions(board):
        assert list(unknown(expression)) == [], expression
        assert list(read_by(expression)), expression


def test_prometheus_understands_every_expression(board, tmp_path):
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(expressions(board))]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", "rules.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_board_shows_one_namespace_at_a_time(board):
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert list(variables) == ["datasource", "namespace"]
    metric = variables["namespace"]["query"].removeprefix("label_values(").split(",")[0]
    assert list(unknown(metric)) == []
    for panel in panels(board):
        for target in panel["targets"]:
            assert target["expr"].count('namespace="$namespace"') == len(list(read_by(target["expr"]))), target["expr"]


def test_a_panel_has_a_unit_a_title_and_a_description(board):
    for panel in panels(board):
        assert panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["id"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]


def test_no_panel_covers_another(board):
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    cells = [cell for panel in board["panels"] for cell in covered(panel["gridPos"])]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)


def covered(place):
    across, down = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
    return itertools.product(across, down)


def test_grafana_finds_every_board(tmp_path):
    documents = render_variant("dashboards", tmp_path)
    (found,) = [one for one in of_kind(documents, "ConfigMap") if "grafana_dashboard" in one["metadata"]["labels"]]
    assert set(found["data"]) == {path.name for path in BOARDS}
