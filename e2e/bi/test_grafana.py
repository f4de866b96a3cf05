"""Runs every query of the dashboard for Grafana. Grafana itself does not run: the tests expand its macros and variables
as its plugin for ClickHouse documents them."""

import json
import re
from datetime import datetime, timedelta, timezone

import pytest
import yaml

from support import BI, GRAFANA, code_of, rows

DASHBOARD = json.loads((GRAFANA / "product.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
PLUGIN = "grafana-clickhouse-datasource"

# The selected time range, and the seconds between two points of a chart.
TO = datetime.now(timezone.utc) + timedelta(minutes=5)
FROM = TO - timedelta(days=7)
INTERVAL = 1800
SELECTED = {"tenant": ["default"], "event": ["click", "view", "play", "vote", "it's"]}


def seconds(time):
    return f"toDateTime({int(time.timestamp())})"


def millis(time):
    return f"fromUnixTimestamp64Milli({int(time.timestamp() * 1000)})"


def between(of):
    return lambda column: f"{column} >= {of(FROM)} AND {column} <= {of(TO)}"


MACROS = {
    "timeFilter": between(seconds),
    "timeFilter_ms": between(millis),
    "dateFilter": between(lambda time: f"toDate('{time:%Y-%m-%d}')"),
    "timeInterval": lambda column: f"toStartOfInterval(toDateTime({column}), INTERVAL {INTERVAL} second)",
    "fromTime": lambda: seconds(FROM),
    "toTime": lambda: seconds(TO),
    "toTime_ms": lambda: millis(TO),
}


def expanded(sql):
    def variable(match):
        return ",".join("'" + value.replace("'", "''") + "'" for value in SELECTED[match[1]])

    def macro(match):
        return MACROS[match[1]](*([match[2]] if match[2] else []))

    sql = re.sub(r"\$\{(\w+):sqlstring\}", variable, sql)
    sql = re.sub(r"\$__(\w+)(?:\((\w+)\))?", macro, sql)
    assert "$" not in sql, sql
    return sql


def test_the_data_source_is_the_one_that_dev_up_offers():
    (source,) = yaml.safe_load((GRAFANA / "datasource.yaml").read_text())["datasources"]
    assert source["type"] == PLUGIN
    settings = source["jsonData"]
    assert (settings["username"], settings["defaultDatabase"], settings["protocol"]) == ("bi_reader", "bi", "http")
    (provider,) = yaml.safe_load((GRAFANA / "dashboards.yaml").read_text())["providers"]
    assert provider["type"] == "file"


def test_panels_do_not_overlap_and_say_what_they_show():
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
        assert panel["description"].endswith("."), panel["title"]
    assert len(PANELS) == len(DASHBOARD["panels"]) == len({panel["id"] for panel in DASHBOARD["panels"]})


@pytest.mark.parametrize("name", [name for name in VARIABLES if name != "datasource"])
def test_a_variable_offers_values(reader, name):
    assert rows(reader, expanded(VARIABLES[name]["query"]))


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_shows_something(reader, title):
    (target,) = PANELS[title]["targets"]
    assert target["datasource"] == {"type": PLUGIN, "uid": "${datasource}"}
    # All events of the test are of today, which is not complete yet.
    result = reader.query(expanded(target["rawSql"]).replace("complete = 1", "complete <= 1"))
    assert result.result_rows
    kinds = [kind.name for kind in result.column_types]
    if target["queryType"] == "timeseries":
        # Grafana uses the first column as the time, text columns as the names of series, and the others as values.
        assert result.column_names[0] == "time" and kinds[0].startswith("DateTime")
        assert kinds[-1] == "Int64", kinds
        times = [row[0] for row in result.result_rows]
        assert times == sorted(times)


@pytest.mark.parametrize("title", [title for title in PANELS if "${tenant" in PANELS[title]["targets"][0]["rawSql"]])
def test_a_panel_reads_by_the_key_of_its_table(reader, title):
    sql = expanded(PANELS[title]["targets"][0]["rawSql"])
    plan = "\n".join(line for (line,) in rows(reader, f"EXPLAIN indexes = 1 {sql}"))
    # Polls have no time, so their key has other columns.
    keys = plan.split("PrimaryKey")[1].split("Condition")[0].split()
    time = {"polls": "rollup", "events_recent": "toStartOfHour(client_time)", "rejected_lines": "tenant"}
    view = re.search(r"FROM (\w+)", sql)[1]
    assert "tenant" in keys and time.get(view, "bucket") in keys, keys


def test_a_filter_of_grafana_that_is_not_in_the_query_is_refused(reader):
    # Grafana sends ad-hoc filters as this setting, which would apply a predicate inside the view.
    filters = {"additional_table_filters": f"{{'{BI}.event_daily': 'event = \\'click\\''}}"}
    with pytest.raises(Exception) as error:
        reader.query("SELECT count() FROM event_daily", settings=filters)
    assert "additional_table_filters" in str(error.value)
