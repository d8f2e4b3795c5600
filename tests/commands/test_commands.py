"""The command line as a user meets it, from a checkout and from a wheel in an empty folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import causalcxr
from causalcxr import simulator
from causalcxr.commands.data import prepare_cohort
from causalcxr.commands.main import main

ROOT = Path(__file__).parents[2]
PATIENT = ["--with", "sex=female", "race=asian", "age=63", "finding=No Finding"]


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(
        f"causalcxr {name}" in text for name in ("train", "evaluate", "counterfactual", "graph check", "simulate")
    )


def test_simulate_writes_a_folder_that_can_be_trained_on(tmp_path):
    folder = tmp_path / "xrays"
    assert main(["simulate", str(folder), "--n", "30", "--size", "32", "--seed", "3"]) == 0
    table = pd.read_csv(folder / "metadata.csv")
    assert (
        len(table) == 30 and (folder / "contact_sheet.png").exists() and (folder / "counterfactuals.png").exists()
    )
    u = simulator.noise(3, torch.arange(30))
    p = simulator.attributes(u)
    np.testing.assert_allclose(table["age"], p["age"], rtol=1e-6)
    exact = (simulator.render(u, p, size=32)[7, 0] * 255).round().numpy()
    with Image.open(folder / table["path"][7]) as image:
        assert np.array_equal(np.asarray(image), exact)
    arguments = [
        "data.source=folder",
        f"data.root={folder}",
        f"data.cache={tmp_path}/cache",
        f"run={tmp_path}/run",
    ]
    assert main(["train", *arguments, "train.stages=[attributes]", "train.attributes.steps=2"]) == 0


def test_simulate_under_an_intervention(tmp_path):
    assert main(["simulate", str(tmp_path / "x"), "--n", "4", "--size", "32", "--do", "age=80", "sex=male"]) == 0
    table = pd.read_csv(tmp_path / "x" / "metadata.csv")
    assert (table["age"] == 80).all() and (table["sex"] == "male").all()


def test_simulate_refuses_to_overwrite(tmp_path, capsys):
    assert main(["simulate", str(tmp_path / "x"), "--n", "2", "--size", "32"]) == 0
    assert main(["simulate", str(tmp_path / "x"), "--n", "2", "--size", "32"]) == 2
    assert "holds X-rays already" in capsys.readouterr().err


def test_simulate_goes_on_in_its_own_folder_and_in_no_other(tmp_path, capsys):
    """A killed process leaves images and what they were to be; only the same command may go on there."""
    out, same = tmp_path / "x", ["--n", "3", "--size", "32"]
    assert main(["simulate", str(out), *same]) == 0
    whole = {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name in ("metadata.csv", "images/0000001.png"):
        (out / name).unlink()
    assert main(["simulate", str(out), *same, "--seed", "9"]) == 2
    assert main(["simulate", str(out), *same]) == 0
    assert {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()} == whole
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "simulation.json").write_text("{}")
    assert main(["simulate", str(tmp_path / "mine"), *same]) == 2
    assert capsys.readouterr().err.count("holds something else; choose another folder or delete it") == 2
    assert (tmp_path / "mine" / "simulation.json").read_text() == "{}"


@pytest.fixture
def pixels(tmp_path):
    """Of a simulated patient, whose image is also written to patient.png."""
    u = simulator.noise(99, torch.arange(1))
    found = (simulator.render(u, simulator.attributes(u), size=32)[0, 0] * 255).round().to(torch.uint8).numpy()
    Image.fromarray(found).save(tmp_path / "patient.png")
    return found


def test_counterfactual_answers_with_a_picture_and_numbers(tiny_run, tmp_path, pixels):
    out = tmp_path / "answer.png"
    question = ["counterfactual", str(tiny_run), str(tmp_path / "patient.png"), *PATIENT, "--do", "age=80"]
    assert main([*question, "--effect", "direct", "--out", str(out)]) == 0
    answer = json.loads(out.with_suffix(".json").read_text())
    assert answer["factual"] == {"sex": "female", "race": "asian", "age": 63.0, "finding": "No Finding"}
    assert answer["counterfactual"] == answer["factual"] | {"age": 80.0}
    scm = causalcxr.load(tiny_run)
    batch = {"sex": "female", "race": "asian", "age": 63, "finding": "No Finding"}
    batch["image"] = torch.from_numpy(pixels)[None, None]
    result = scm.counterfactual(batch, do={"age": 80}, effect="direct", seed=0)
    change = (result["image"] - batch["image"] / 255).abs().mean() * 255
    assert answer["mean_absolute_change_grey_levels"] == pytest.approx(float(change), abs=1e-3)
    with Image.open(out) as picture:
        assert picture.width > 200


def test_several_draws_give_the_expected_counterfactual_and_their_spread(tiny_run, tmp_path, pixels):
    out, draws = tmp_path / "answer.png", 5
    question = ["counterfactual", str(tiny_run), str(tmp_path / "patient.png"), *PATIENT, "--do", "age=80"]
    assert main([*question, "--draws", str(draws), "--out", str(out)]) == 0
    answer = json.loads(out.with_suffix(".json").read_text())
    batch = {"sex": "female", "race": "asian", "age": 63, "finding": "No Finding"}
    batch["image"] = torch.from_numpy(pixels).expand(draws, 1, -1, -1)
    made = causalcxr.load(tiny_run).counterfactual(batch, do={"age": 80}, seed=0)["image"]
    change = (made.mean(dim=0) - batch["image"][0] / 255).abs().mean() * 255
    spread = (made - made.mean(dim=0)).square().sum(dim=0).div(draws - 1).mean().sqrt() * 255
    assert answer["draws"] == draws
    assert answer["mean_absolute_change_grey_levels"] == pytest.approx(float(change), abs=1e-3)
    assert answer["spread_of_draws_grey_levels"] == pytest.approx(float(spread), rel=1e-4)
    assert spread > 0
    with Image.open(out) as picture:
        assert picture.width > 500  # factual, mean and three draws


def test_a_wheel_works_in_an_empty_folder(tmp_path):
    wheels, site, empty = tmp_path / "wheels", tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    _run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(ROOT)], tmp_path
    )
    (wheel,) = wheels.glob("causalcxr-*.whl")
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    _run([sys.executable, *install], tmp_path)
    code = "import causalcxr; print(causalcxr.__file__); causalcxr.load_graph('morphomnist')"
    assert str(site) in _run([sys.executable, "-c", code], empty, site)
    small = ["data.train=8", "data.val=4", "data.test=4", "train.attributes.steps=2", "train.stages=[attributes]"]
    causalcxr = [sys.executable, "-m", "causalcxr"]
    train = [*causalcxr, "train", "graph=chest", "preset=quickstart", "run=r", *small]
    assert "trained: r" in _run(train, empty, site)
    assert (empty / "r" / "model.safetensors").exists()
    assert "report: r/report.html" in _run([*causalcxr, "evaluate", "run=r"], empty, site)


def _run(command: list[str], folder: Path, site: Path | None = None) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": str(site)} if site else {})
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_data_prepare_says_where_the_card_is_and_how_to_train(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = ["data.train=20", "data.val=4", "data.test=4"]
    assert main(["data", "prepare", "simulator", "sim", "--sizes", "64", "32", *counts, "preset=quickstart"]) == 0
    small, large = (f"card: {tmp_path}/sim/{size}/card.html" for size in (32, 64))
    assert capsys.readouterr().out.splitlines() == [
        small,
        "next: causalcxr train preset=quickstart data.size=32 data.prepared=sim run=runs/sim-32",
        large,
        "next: causalcxr train preset=quickstart data.prepared=sim run=runs/sim-64",
    ]
    assert (tmp_path / "sim/32/card.html").exists() and (tmp_path / "sim/64/images.npy").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sim"]


def test_a_prepared_folder_is_trained_on_and_evaluated_wherever_it_lies(tmp_path, capsys):
    out, xrays = tmp_path / "out", tmp_path / "x=rays"
    assert main(["simulate", str(xrays), "--n", "40", "--size", "32"]) == 0
    words = ["data", "prepare", "folder", str(xrays), str(out), "data.size=32", "graph=chest"]
    assert main(words) == 0
    command = capsys.readouterr().out.splitlines()[-1].removeprefix("next: causalcxr ").split()
    assert command[:4] == ["train", "graph=chest", "preset=hvae32", f"data.prepared={out}"]
    steps = ["train.stages=[attributes]", "train.attributes.steps=2", "train.device=cpu"]
    train = [*command[:3], *steps, f"run={tmp_path}/run"]
    assert main([*train, f"data.prepared={out}"]) == 0
    out.rename(tmp_path / "moved")
    assert main([*train, f"data.prepared={tmp_path}/moved"]) == 0
    assert main(["evaluate", f"run={tmp_path}/run", f"data.prepared={tmp_path}/moved"]) == 0
    assert "not the data" not in (tmp_path / "run" / "report.html").read_text("utf-8")
    table = pd.read_csv(xrays / "metadata.csv")
    table.iloc[:30].to_csv(xrays / "metadata.csv", index=False)
    assert main([*words[:4], str(tmp_path / "fewer"), *words[5:]]) == 0
    assert main([*train, f"data.prepared={tmp_path}/fewer"]) == 2
    assert "was begun with other data than data.prepared=" in capsys.readouterr().err


def test_the_command_that_trains_keeps_the_mechanism(tmp_path):
    few = ["data.train=8", "data.val=2", "data.test=2", "model.image=flow"]
    ((_, command),) = prepare_cohort("simulator", "", str(tmp_path / "out"), few, [64])
    assert "model.image=flow" in command and "hvae64" not in command and "#" not in command
    with pytest.raises(causalcxr.CausalCXRError, match="unknown mechanism 'flwo' for kind 'image'"):
        prepare_cohort("simulator", "", str(tmp_path / "two"), [*few[:3], "model.image=flwo"], [64])


def test_the_command_that_trains_says_where_the_network_does_not_fit(tmp_path):
    few = ["data.train=8", "data.val=2", "data.test=2"]
    commands = dict(prepare_cohort("simulator", "", str(tmp_path / "out"), few, [64, 40]))
    by_size = {int(folder.name): command for folder, command in commands.items()}
    assert by_size[64].startswith("causalcxr train preset=hvae64 ") and "#" not in by_size[64]
    assert "# and, since model.hvae.resolutions: starts with 32, expected data.size / stem = 20" in by_size[40]
