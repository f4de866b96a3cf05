"""The examples of docs/bi.md work."""

import re

from support import BI, DSNS, PAGE


def test_the_example_for_notebooks_prints_days(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    documented = "clickhouse://bi_reader:local@127.0.0.1:18123/bi"
    assert documented in example
    # Includes incomplete days, because the days of the test are not complete yet.
    exec(example.replace(documented, DSNS[0]).replace(" AND complete = 1", ""), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(re.fullmatch(r"\d{4}-\d\d-\d\d \d+", line) for line in lines)


def test_every_view_that_the_page_names_is_there(reader):
    answers = PAGE.split("## Which view answers which question")[1].split("Traps:")[0]
    named = {name for line in answers.splitlines() if line.startswith("| ") for name in re.findall(r"`(\w+)`", line)}
    views = {name for (name,) in reader.query(f"SELECT name FROM system.tables WHERE database = '{BI}'").result_rows}
    assert named - {"view", "param_int", "poll_votes"} <= views
