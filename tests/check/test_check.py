"""`causalcxr graph check` as a user meets it: tables in, words and an exit status out, refusals in one line."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from causalcxr.commands.main import main
from causalcxr.data import DataConfig, prepare, prepare_into
from causalcxr.graph import load_graph
from tests.check.worlds import draw, world

ROWS = 3000
QUICK = ["train.device=cpu", "train.attributes.steps=300", "train.attributes.learning_rate=0.02"]


@pytest.fixture
def graph_file(tmp_path):
    """A function that writes the world's graph without some edges, and returns the file's name."""

    def write(*without):
        path = tmp_path / "world.yaml"
        path.write_text(yaml.safe_dump(world(*without).to_dict(), sort_keys=False))
        return str(path)

    return write


@pytest.fixture
def table():
    """The world's rows as a person would keep them: labels, and one row a patient."""
    values, graph = draw(ROWS, 0), world()
    columns = {
        name: np.array(graph[name].labels)[column] if graph[name].is_discrete else column
        for name, column in values.items()
    }
    return pd.DataFrame(columns)


def write(table, tmp_path, name="table.csv"):
    table.to_csv(tmp_path / name, index=False)
    return str(tmp_path / name)


def as_source(table, tmp_path):
    """The key=value arguments that read it."""
    write(table.assign(patient_id=range(len(table))), tmp_path, "metadata.csv")
    return ["data.source=folder", f"data.root={tmp_path}", *QUICK]


def test_a_plain_table_and_the_right_graph(table, graph_file, tmp_path, capsys):
    out = tmp_path / "found.json"
    assert main(["graph", "check", graph_file(), write(table, tmp_path), *QUICK, "--json", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"graph 'world' on {ROWS:,} rows of {ROWS:,} patients (rejected: none)" in said
    assert "The data contradict nothing that the graph says (level 0.05, 16 tests)." in said
    found = json.loads(out.read_text())
    assert (found["contradicted"], found["complaints"], found["missing_edges"]) == (False, [], [])
    assert len(found["independences"]) == 10
    assert [fit["variable"] for fit in found["mechanisms"]] == list(world().attributes)
    assert all(one["p"] <= one["adjusted"] <= 1 for one in found["independences"] + found["mechanisms"])


def test_a_missing_edge_is_named_in_plain_words(table, graph_file, tmp_path, capsys):
    out = tmp_path / "found.json"
    arguments = [graph_file(("race", "finding")), *as_source(table, tmp_path), "--json", str(out)]
    assert main(["graph", "check", *arguments]) == 1
    said = capsys.readouterr().out
    assert "The data contradict the missing edge race -> finding: given age, race and finding are not" in said
    found = json.loads(out.read_text())
    assert found["contradicted"] and found["missing_edges"] == [["race", "finding"]]
    assert found["tests"] == 17 and "after correction for 17 tests" in found["complaints"][0]


def test_an_edge_that_the_data_do_not_show_is_a_note_and_no_complaint(table, graph_file, tmp_path, capsys):
    path = graph_file()
    declared = yaml.safe_load(Path(path).read_text())
    declared["variables"]["finding"]["parents"].append("sex")
    Path(path).write_text(yaml.safe_dump(declared, sort_keys=False))
    assert main(["graph", "check", path, *as_source(table, tmp_path)]) == 0
    assert "Note: the data do not show the edge sex -> finding: given race and age" in capsys.readouterr().out


def test_a_mechanism_that_was_fitted_badly_is_named(table, graph_file, tmp_path, capsys):
    arguments = [*as_source(table, tmp_path), "train.attributes.steps=1"]
    assert main(["graph", "check", graph_file(), *arguments]) == 1
    assert "The mechanism of stay does not describe held-out rows: in" in capsys.readouterr().out


def test_a_prepared_cohort_with_its_rejected_rows(table, graph_file, tmp_path, capsys):
    table.loc[7, "age"] = 413
    write(table.assign(patient_id=np.arange(ROWS) // 2), tmp_path, "metadata.csv")
    graph = graph_file(("age", "dose"))
    config = DataConfig(source="folder", root=str(tmp_path), cache=str(tmp_path / "cache"))
    folder = prepare(config, load_graph(graph))
    assert main(["graph", "check", graph, str(folder), *QUICK]) == 1
    said = capsys.readouterr().out
    assert f"{ROWS - 1:,} rows of {ROWS // 2:,} patients (rejected: out of range 1)" in said
    assert "missing edge age -> dose: age and dose are not independent" in said
    (out,) = prepare_into(tmp_path / "out", config, load_graph(graph))
    keys = [f"data.prepared={out.parent}", f"data.size={out.name}", "data.source=simulator"]
    assert main(["graph", "check", graph, *keys, *QUICK]) == 1
    again = capsys.readouterr().out
    assert again == said


def test_the_same_command_says_the_same(table, graph_file, tmp_path, capsys):
    arguments = ["graph", "check", graph_file(), *as_source(table, tmp_path), "train.attributes.steps=20"]
    said = []
    for _ in range(2):
        main(arguments)
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


def test_images_are_not_read(tmp_path, capsys):
    arguments = ["data.source=simulator", "data.train=600", "data.val=100", "data.test=100", *QUICK]
    assert main(["graph", "check", "chest", *arguments, f"data.cache={tmp_path}/cache"]) in (0, 1)
    assert not (tmp_path / "cache").exists()
    assert "race and finding given age" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.drop(columns="race"), "has no column 'race'"),
        (lambda t: t.assign(race="martian"), "none of 3,000 rows can be used: other value 3,000"),
        (lambda t: t.assign(sex="male"), "'sex' is 'male' in all 3,000 rows, so nothing can be tested about it"),
        (lambda t: t.assign(age=50.0), "'age' is '50.0' in all 3,000 rows"),
        (
            lambda t: t.assign(finding=["yes"] * 5 + ["no"] * (ROWS - 5)),
            "'finding' is 'no' in all but 5 of 3,000 rows, so nothing can be tested about it; at least 20 rows",
        ),
        (lambda t: t[:90], "90 usable rows of 90 patients are too few to test a graph on; at least 100"),
        (lambda t: t.assign(patient_id=np.arange(ROWS) % 90), "3,000 usable rows of 90 patients are too few"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_one_line(table, graph_file, tmp_path, capsys, change, expected):
    assert main(["graph", "check", graph_file(), write(change(table), tmp_path)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert expected in said[-1] and len([line for line in said if line.startswith("causalcxr:")]) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "graph: the following arguments are required: COMMAND"),
        (["chekc"], "invalid choice: 'chekc'"),
        (["check", "chest"], "the following arguments are required: cohort"),
        (["check", "chets", "x.csv"], "no graph 'chets'"),
        (["check", "chest", "nowhere.csv"], "no table '"),
        (["check", "chest", "preset=quickstrat"], "no preset 'quickstrat'"),
        (["check", "chest", "data.source=simulator", "data.trian=3"], "unknown key 'data.trian'"),
        (["check", "chest", "one.csv", "two.csv"], "argument 'two.csv': expected key=value"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_in_one_line(arguments, expected, capsys):
    assert main(["graph", *arguments]) == 2
    said = capsys.readouterr().err
    assert expected in said and said.count("\n") == 1


def test_a_folder_that_is_no_cohort_is_refused(tmp_path, capsys):
    assert main(["graph", "check", "chest", str(tmp_path)]) == 2
    assert "is not the folder of a prepared cohort: it has no readable 'cohort.json'" in capsys.readouterr().err
