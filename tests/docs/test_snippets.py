"""Every snippet of README and the pages: Python runs, YAML loads, commands are understood."""

import argparse
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from causalcxr.bias.config import StudyConfig, check_study
from causalcxr.commands.arguments import Parser, assignments
from causalcxr.commands.main import COMMANDS, main
from causalcxr.config import load_config, override_config, read_config, read_settings
from causalcxr.data.config import SOURCES
from causalcxr.evaluation.evaluate import DATA_PLACES
from causalcxr.federation.config import SitesConfig, check_sites_config
from causalcxr.federation.sites import open_sites_graph
from causalcxr.graph import graph_from_dict, load_graph
from causalcxr.training.pipeline import train
from causalcxr.values import parse_assignments
from tests.bias.conftest import STUDY
from tests.conftest import TINY_DATA, TINY_IMAGE, TINY_TRAINING
from tests.docs.pages import ROOT, Block, commands, fenced

RUNS = ("demo", "demo-counterfactual", "mine")  # what the pages call a run that is trained
PLACEHOLDERS = {"...": [], "key=value": [], "preset=NAME": ["preset=quickstart"]}


def _name(block: Block) -> str:
    return f"{block.page}-{block.number}"


class Classifier(nn.Module):
    """Stands in for a classifier of torchxrayvision: two probabilities from the mean of the image."""

    pathologies = ("Atelectasis", "Effusion")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mean = image.mean(dim=(1, 2, 3)) / 1024
        return torch.stack([mean, -mean], dim=1).sigmoid()


class Network(nn.Module):
    """Stands in for a reader's own classifier: four numbers from the mean of the image."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape[1:] == (3, 224, 224)
        mean = image.mean(dim=(1, 2, 3))
        return torch.stack([mean, -mean, mean, -mean], dim=1)


@pytest.fixture
def workplace(tiny_run, tmp_path, monkeypatch) -> Path:
    """A folder with the runs and presets that the pages speak of."""
    (tmp_path / "runs").mkdir()
    for name in RUNS:
        (tmp_path / "runs" / name).symlink_to(tiny_run)
    presets = {block.page: block.text for block in reversed(fenced("yaml"))}  # the first of a page
    (tmp_path / "my-hospital.yaml").write_text(presets["README.md"])
    (tmp_path / "study.yaml").write_text(STUDY.format(run="runs/study", cache="cache"))
    (tmp_path / "mira-labels.yaml").write_text(presets["docs/data/mira.md"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def without_race(tmp_path_factory) -> Path:
    """A trained run whose graph is that of the adapters' example."""
    folder = tmp_path_factory.mktemp("without_race")
    where = ["graph=chest_without_race", f"run={folder / 'run'}", f"data.cache={folder / 'cache'}"]
    return train(load_config([*where, *TINY_DATA, *TINY_IMAGE, *TINY_TRAINING]))


@pytest.mark.parametrize("block", fenced("python"), ids=_name)
def test_python_runs(block, workplace, request):
    if block.page == "docs/finetuning.md":
        (workplace / "runs" / "mine").unlink()
        (workplace / "runs" / "mine").symlink_to(request.getfixturevalue("without_race"))
    if block.page == "docs/audit.md":
        (workplace / "runs" / "demo").unlink()
        (workplace / "runs" / "demo").symlink_to(request.getfixturevalue("audit_run"))
    names: dict[str, Any] = {"model": Classifier(), "network": Network(), "__name__": "__main__"}
    exec(compile(block.text, _name(block), "exec"), names)
    if block.page == "README.md":
        assert torch.equal(names["older"]["age"], torch.full((8,), 80.0))
        assert (names["healthy"]["finding"] == 0).all()
        assert torch.equal(names["healthy"]["age"], names["batch"]["age"])  # not reached, so as it was


@pytest.mark.parametrize("block", fenced("yaml"), ids=_name)
def test_yaml_loads(block, tmp_path):
    declared = yaml.safe_load(block.text)
    if "variables" in declared:
        assert graph_from_dict(declared).attributes
        return
    preset = tmp_path / "preset.yaml"
    preset.write_text(block.text)
    if "plant" in declared:
        check_study(read_settings(StudyConfig, preset))
        return
    if "rounds" in declared:
        study = read_settings(SitesConfig, preset)
        check_sites_config(study, open_sites_graph(study))
        return
    config = load_config([f"preset={preset}"])
    assert load_graph(config.graph).image


def test_the_presets_of_own_data_lead_to_fine_tuning():
    """A base without the stage `predictors` is refused, so a reader's first run must have it."""
    presets = [block for block in fenced("yaml") if block.page in ("README.md", "docs/own-data.md")]
    assert len(presets) == 2
    assert all("predictors" in yaml.safe_load(block.text)["train"]["stages"] for block in presets)


class Parsed(Exception):
    """Raised in the place of doing what a command says."""


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_are_understood(page, line, workplace, monkeypatch):
    words = shlex.split(line, comments=True)
    words = [each for word in words for each in PLACEHOLDERS.get(word, [word])]
    match words:
        case (
            ["causalcxr", command]
            | ["causalcxr", "graph" as command, "check"]
            | ["causalcxr", "data" as command, "prepare"]
        ):
            assert command in COMMANDS  # its name, in prose
        case ["causalcxr", *arguments]:
            _check_causalcxr(arguments, monkeypatch)
        case ["torchrun", launcher, script, *arguments]:
            assert launcher.startswith("--nproc_per_node=")
            _check_causalcxr([Path(script).stem, *arguments], monkeypatch)
        case ["python", "train.py" | "evaluate.py" as script, *arguments]:
            assert (ROOT / script).is_file()
            _check_causalcxr([Path(script).stem, *arguments], monkeypatch)
        case ["python", script, *arguments]:
            source = (ROOT / script).read_text("utf-8")
            assert all(f'"{word}"' in source for word in arguments if word.startswith("--"))
        case ["make", *targets]:
            rules = (ROOT / "Makefile").read_text("utf-8")
            assert all(f"\n{target}:" in rules for target in targets)
        case ["pip", "install", what]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
                "optional-dependencies"
            ]
            assert what == "." or what.removeprefix("causalcxr[").removesuffix("]") in extras
        case [".venv/bin/python", "-m", "pytest", path, *_]:
            assert (ROOT / path).exists()
        case [".venv/bin/mkdocs", "build", "--strict"]:
            assert (ROOT / "mkdocs.yml").is_file()
        case _:
            pytest.fail(f"{page}: no test knows this command: {line}")


def _check_causalcxr(arguments: Sequence[str], monkeypatch) -> None:
    """Everything that a command line says is looked at, and nothing is done."""
    command, *rest = arguments
    assert command in COMMANDS
    if command == "train":
        load_config([word for word in rest if word != "--dry-run"])
    elif command == "evaluate":
        _check_evaluate(rest)
    else:
        options = _parse(arguments, monkeypatch)
        _check_options(command, rest, options)


def _check_evaluate(arguments: Sequence[str]) -> None:
    overrides = [word for word in arguments if "=" in word and not word.startswith("run=")]
    assert len(overrides) == len(arguments) - 1
    assert all(word.startswith(("evaluate.", *DATA_PLACES)) for word in overrides)
    override_config(read_config(Path("runs/demo/config.yaml")), overrides)


def _parse(arguments: Sequence[str], monkeypatch) -> argparse.Namespace:
    def parse(parser: Parser, words: Sequence[str]) -> None:
        raise Parsed(argparse.ArgumentParser.parse_args(parser, words))

    monkeypatch.setattr(Parser, "parse_args", parse)
    with pytest.raises(Parsed) as parsed:
        main(arguments)
    return parsed.value.args[0]


def _check_options(command: str, arguments: Sequence[str], options: argparse.Namespace) -> None:
    settings = [word for word in arguments if "=" in word and not word.startswith("-")]
    if command == "data":
        assert options.source in (*SOURCES, "SOURCE")
        load_config(settings)
    elif command == "graph":
        load_config(settings)
    elif command == "audit":
        asked = [word for word in settings if word.startswith(("audit.", *DATA_PLACES))]
        override_config(read_config(Path("runs/demo/config.yaml")), asked)
    elif command == "bias":
        if options.study != "STUDY.yaml":
            check_study(read_settings(StudyConfig, ROOT / options.study, settings))
    elif command == "counterfactual":
        graph, named = load_graph("chest"), assignments(arguments, "--with", "--do")[1]
        assert set(parse_assignments(graph, named["--with"])) == set(graph.attributes)
        assert parse_assignments(graph, named["--do"])
    elif command == "simulate":
        assert parse_assignments(load_graph("chest"), options.do) is not None
