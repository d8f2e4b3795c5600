"""A study from its file to its report: twins, resuming, a larger grid, real films, and what is refused."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from causalcxr.bias.config import StudyConfig
from causalcxr.bias.films import GROUP, WEIGHT
from causalcxr.bias.grid import Bias, Network, all_networks, scored_biases
from causalcxr.bias.report import write_report
from causalcxr.bias.study import Study, run_study
from causalcxr.bias.training import build_network, training_rows
from causalcxr.commands.main import main
from causalcxr.config import read_settings
from causalcxr.data.preparation import open_cohort
from causalcxr.graph import load_graph
from causalcxr.support.errors import CausalCXRError, ConfigError, RunError
from causalcxr.support.files import load_tensors
from causalcxr.support.workers import run_jobs
from causalcxr.training.loop import Fit


def weights(study: Study, network: Network) -> dict[str, torch.Tensor]:
    return load_tensors(study.opened.place(network) / "network.safetensors")[0]


def scores(study: Study, network: Network) -> dict[str, torch.Tensor]:
    return load_tensors(study.opened.place(network) / "scores.safetensors")[0]


@pytest.mark.parametrize("q", [0.5, 0.8])
@pytest.mark.parametrize("seed", [0, 1])
def test_without_a_bias_the_twin_is_the_same_bit_for_bit(study: Study, q: float, seed: int) -> None:
    network, twin = Network(Bias("nothing"), q, seed), Network(Bias(), 0.0, seed)
    own, other = weights(study, network), weights(study, twin)
    assert own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)
    found = scores(study, network)
    assert torch.equal(found["plain"], found["biased/nothing"])
    cell = next(c for c in study.cells if c.bias.kind == "nothing" and c.q == q)
    assert [cell.measured.statistics[n].value for n in ("gap", "pair_gap", "pair_shift")] == [0, 0, 0]


def test_a_bias_makes_another_network_from_the_same_first_weights(study: Study) -> None:
    config, films = study.opened.config, study.opened.films
    own, twin = (weights(study, n) for n in (Network(Bias("marker"), 0.8, 0), Network(Bias(), 0.0, 0)))
    assert any(not torch.equal(own[name], twin[name]) for name in own)
    first = [build_network(config, study.opened.variable, 1, seed).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(first[0][name], first[1][name]) for name in first[0])
    assert any(not torch.equal(first[0][name], first[2][name]) for name in first[0])
    batches = [
        training_rows(films, config, n, "train") for n in (Network(Bias("marker"), 0.8, 0), Network(Bias(), 0, 0))
    ]
    finding = [rows.batch(range(96))["finding"] for rows in batches]
    assert torch.equal(*finding)


def test_grid(study: Study) -> None:
    """Two twins serve all; eight biased networks, and three methods at one q (0.8) for each bias and seed."""
    names = [network.name for network in all_networks(study.opened.config)]
    assert len(names) == len(set(names)) == 2 + 8 + 12
    assert "marker-q0.8-unlearning-seed1" in names
    assert list(scored_biases(Network(Bias(), 0.0, 0), study.opened.config)) == ["marker", "nothing"]
    assert len([c for c in study.cells if c.method == "none"]) == 4
    assert set(study.layers) == {"twin of marker", "marker-q0.5-seed0", "marker-q0.8-seed0"}


def test_group_models_are_two_networks_from_one(study: Study) -> None:
    found = weights(study, Network(Bias("marker"), 0.8, 0, "group_models"))
    assert {name.split("/")[0] for name in found} == {"0", "1"}
    assert not torch.equal(found["0/linear.0.weight"], found["1/linear.0.weight"])


def test_reweighing_weighs_the_rows_and_nothing_else(study: Study) -> None:
    config, films = study.opened.config, study.opened.films
    rows = training_rows(films, config, Network(Bias("marker"), 0.8, 0, "reweighing"), "train")
    batch = rows.batch(range(len(rows)))
    for y in (0, 1):
        for g in (0, 1):
            cell = (batch["finding"] == y) & (batch[GROUP] == g)
            margins = (batch["finding"] == y).double().mean() * (batch[GROUP] == g).double().mean()
            assert batch[WEIGHT][cell].double().sum() / 96 == pytest.approx(float(margins), abs=1e-6)


def test_report(study: Study, capsys: pytest.CaptureFixture) -> None:
    report = write_report(study)
    page = report.read_text()
    for text in (
        "How far networks follow it",
        "Encoding is not use",
        "Where they look",
        "Mitigation",
        "group models",
    ):
        assert text in page
    assert page.count("data:image/png;base64") == 5
    found = json.loads((report.parent / "study.json").read_text())
    assert found["networks"] == 22 and found["bayes"]["0.8"]["gap"] == pytest.approx(0.334, abs=5e-4)
    cell = next(c for c in found["cells"] if (c["bias"], c["q"], c["method"]) == ("marker", 0.8, "none"))
    table = pd.read_csv(report.parent / "scores.csv")
    own = table[(table["kind"] == "marker") & (table["q"] == 0.8) & (table["method"] == "none")]
    assert set(own["seed"]) == {0, 1}
    assert (own["score"] == np.where(own["group"] == "B", own["score_b"], own["score_a"])).all()
    called = own.assign(own=own["score"] > 0, twin=own["score_twin"] > 0)
    statistics = cell["statistics"]
    assert statistics["accuracy"]["value"] == pytest.approx((called["own"] == own["y_true"]).mean(), abs=1e-9)
    share = {of: called.pivot_table(of, "y_true", "group", "mean") for of in ("own", "twin")}
    gaps = {of: np.mean(rates["B"].to_numpy() - rates["A"].to_numpy()) for of, rates in share.items()}
    assert statistics["gap"]["value"] == pytest.approx(gaps["own"] - gaps["twin"], abs=1e-9)
    assert statistics["index"]["value"] == pytest.approx(statistics["gap"]["value"] / 0.3342639733, abs=1e-6)


def test_what_is_done_is_not_done_again_and_a_grid_grows(
    study: Study, study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    run = Fit.run
    monkeypatch.setattr(Fit, "run", lambda self: (trained.append(1), run(self))[1])
    run_study(read_settings(StudyConfig, study_file))
    assert not trained
    grown = run_study(read_settings(StudyConfig, study_file, ["q=[0.5,0.8,0.9]", "mitigate_q=[0.8]"]))
    assert len(trained) == 4  # two biases, two seeds
    assert len(grown.cells) == len(study.cells) + 2


def test_a_killed_training_ends_where_a_whole_one_does(
    study: Study, study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the sixth step of the second network; the same command goes on, bit for bit."""
    settings = [f"run={tmp_path / 'killed'}", "mitigate=[]", "saliency_rows=0"]
    config, taken, step = read_settings(StudyConfig, study_file, settings), [], Fit._step

    def killed(self: Fit) -> object:
        taken.append(1)
        if len(taken) == 18:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Fit, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run_study(config)
    monkeypatch.setattr(Fit, "_step", step)
    again = run_study(config)
    for network in all_networks(config):
        own = scores(again, network)
        assert all(torch.equal(own[name], scores(study, network)[name]) for name in own)


def test_in_two_processes_as_in_one(study: Study, study_file: Path, tmp_path: Path) -> None:
    """The same numbers to float tolerance: a process has one thread, and sums in another order."""
    settings = [f"run={tmp_path / 'two'}", "mitigate=[]", "saliency_rows=0"]
    config = read_settings(StudyConfig, study_file, [*settings, "processes=2", "q=[0.8]", "encode_q=[0.8]"])
    two = run_study(config)
    for network in all_networks(config):
        own = scores(two, network)
        assert all(torch.allclose(own[name], scores(study, network)[name], atol=1e-4) for name in own)


def test_a_module_of_ones_own(study_file: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def build(channels):\n"
        "    return nn.Sequential(nn.Conv2d(channels, 4, 8, stride=8), nn.ReLU(), nn.Flatten())\n"
        "def flat(channels):\n"
        "    return nn.Conv2d(channels, 4, 8)\n"
    )
    few = ["mitigate=[]", "seeds=[0]", "q=[0.8]", "encode_q=[0.8]", "mitigate_q=[0.8]"]
    settings = [f"run={tmp_path / 'run'}", *few]
    found = run_study(read_settings(StudyConfig, study_file, [*settings, f"module={tmp_path}/mine.py:build"]))
    assert [layer["layer"] for layer in found.layers["marker-q0.8-seed0"]] == ["1 relu"]
    with pytest.raises(ConfigError, match=r"made \(2, 4, 25, 25\) of two images; expected features"):
        run_study(read_settings(StudyConfig, study_file, [*settings, f"module={tmp_path}/mine.py:flat"]))


def test_films_of_ones_own(study_file: Path, tmp_path: Path) -> None:
    """A folder of PNGs with a table: no best classifier is known, so gaps stand in the place of the index."""
    main(["simulate", str(tmp_path / "films"), "--n", "240", "--size", "32"])
    where = ["data.source=folder", f"data.root={tmp_path / 'films'}", "data.knobs={}", f"run={tmp_path / 'run'}"]
    channels = "plant={marker: {marker: 1.0}, steep: {contrast: 0.2, underdiagnosis: 0.3}}"
    small = ["mitigate=[reweighing]", "seeds=[0]", "probe_rows=40"]
    found = run_study(read_settings(StudyConfig, study_file, [*where, channels, *small]))
    assert not found.opened.has_bayes
    page = write_report(found).read_text()
    assert "Gap between the groups" in page and "best gap" not in page
    film = np.asarray(Image.open(next((tmp_path / "films" / "images").glob("*.png"))))
    assert film.shape == (32, 32)


def test_command(study: Study, study_file: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["bias", str(study_file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("report: ") and lines[0].startswith("marker: shortcut index")


@pytest.mark.parametrize(
    ("settings", "message"),
    [(["q=[0.4]"], "q has 0.4; expected numbers from 0.5"),
     (["mitigate_q=[0.7]"], "mitigate_q has 0.7, which is not in q"),
     (["mitigate=[reweigh]"], "mitigate has 'reweigh'; did you mean 'reweighing'"),
     (["plant={marker-1: {marker: 1.0}}"], "use letters, digits and _"),
     (["finding=age"], "'age' has not two labels"),
     (["finding=findin"], "'findin' is no attribute; did you mean 'finding'"),
     (["data.planted={group: {marker: 1.0}}"], "a study plants its own biases"),
     (["stps=3"], "unknown key 'stps'"),
     (["seeds=[1,1]"], "seeds is .*expected each value once"),
     (["strengths=[1,2]"], "plant.marker.marker: expected opacity.*strengths has 2"),
     (["probe_rows=10"], "probe_rows is 10; expected at least 40, or 0"),
     (["data.test=3"], "the split 'test' has nobody with"),
     (["plant.empty={}"], "plant.empty plants nothing"),
     (["data.test=10", "q=[0.5]"], "whose layers are probed, a .* has or lacks .; expected at least 5"),
     (["module=nowhere.py:f"], "module: no file 'nowhere.py'")],
)  # fmt: skip
def test_a_study_that_cannot_be(study_file: Path, tmp_path: Path, settings: list[str], message: str) -> None:
    with pytest.raises(CausalCXRError, match=message):
        run_study(read_settings(StudyConfig, study_file, [f"run={tmp_path / 'x'}", *settings]))
    assert not (tmp_path / "x").exists()


def test_a_study_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="plant: expected at least one kind of bias, such as plant="):
        run_study(StudyConfig(run=str(tmp_path / "x")))


def test_a_folder_of_something_else_is_left_alone(study_file: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("a")
    with pytest.raises(RunError, match="holds something else"):
        run_study(read_settings(StudyConfig, study_file, [f"run={tmp_path}"]))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_no_study(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["bias", str(tmp_path / "none.yaml")]) == 2
    assert "no study" in capsys.readouterr().err


def test_two_at_once_and_each_alone(study_file: Path, tmp_path: Path) -> None:
    """A network of both is scored on films with one of them; a bias that is added later is scored, not trained."""
    text = study_file.read_text().replace(
        "nothing: {exposure: 0.0}", "exposed: {exposure: 0.3}\n  both: {marker: 1.0, exposure: 0.3}"
    )
    path = tmp_path / "both.yaml"
    path.write_text(text)
    few = [f"run={tmp_path / 'run'}", "mitigate=[]", "seeds=[0]", "q=[0.8]", "encode_q=[0.8]", "saliency_rows=0"]
    found = run_study(read_settings(StudyConfig, path, few))
    assert [(part.network, part.part) for part in found.parts] == [
        ("both, q = 0.8", n) for n in ("marker", "exposed", "both")
    ]
    twin = found.opened.place(Network(Bias(), 0.0, 0))
    before = (twin / "network.safetensors").stat().st_mtime_ns
    grown = run_study(read_settings(StudyConfig, path, [*few, "plant.steep={contrast: 0.2}"]))
    assert (twin / "network.safetensors").stat().st_mtime_ns == before
    assert "biased/steep" in load_tensors(twin / "scores.safetensors")[0]
    assert len(grown.cells) == 4


def test_another_strength_under_the_same_name_is_another_bias(study_file: Path, tmp_path: Path) -> None:
    """Films, networks and probes are named by what they depend on, and not by the kind alone."""
    few = [f"run={tmp_path / 'run'}", "mitigate=[]", "seeds=[0]", "q=[0.8]", "encode_q=[0.8]", "saliency_rows=0"]
    full, faint = (
        run_study(read_settings(StudyConfig, study_file, [*few, f"plant.marker.marker={strength}"]))
        for strength in (1.0, 0.2)
    )
    fresh = run_study(
        read_settings(StudyConfig, study_file, [*few[1:], f"run={tmp_path / 'fresh'}", "plant.marker.marker=0.2"])
    )
    brightest = [
        study.opened.films.biased["marker"].astype(int) - study.opened.films.plain for study in (full, faint)
    ]
    assert brightest[0].max() > 3 * brightest[1].max() > 0
    network = Network(Bias("marker"), 0.8, 0)
    assert torch.equal(scores(faint, network)["biased/marker"], scores(fresh, network)["biased/marker"])
    assert faint.layers == fresh.layers != full.layers


def test_probing_more_rows_is_probing_again(study_file: Path, tmp_path: Path) -> None:
    few = [f"run={tmp_path / 'run'}", "mitigate=[]", "seeds=[0]", "q=[0.8]", "encode_q=[0.8]", "saliency_rows=0"]
    found = [
        run_study(read_settings(StudyConfig, study_file, [*few, f"probe_rows={rows}"])).layers["marker-q0.8-seed0"]
        for rows in (64, 48)
    ]
    assert found[0] != found[1]


def test_a_module_that_was_edited_is_another_network(study_file: Path, tmp_path: Path) -> None:
    code = (
        "from torch import nn\n"
        "def build(channels):\n"
        "    return nn.Sequential(nn.Conv2d(channels, {}, 8, stride=8), nn.Flatten())\n"
    )
    few = [
        "mitigate=[]",
        "seeds=[0]",
        "q=[0.8]",
        "saliency_rows=0",
        "probe_rows=0",
        f"module={tmp_path}/mine.py:build",
    ]
    sizes = []
    for width in (2, 3):
        (tmp_path / "mine.py").write_text(code.format(width))
        found = run_study(read_settings(StudyConfig, study_file, [f"run={tmp_path / 'run'}", *few]))
        sizes.append(weights(found, Network(Bias("marker"), 0.8, 0))["0/trunk.0.weight"].shape[0])
    assert sizes == [2, 3]
    assert not found.layers


def test_saliency_without_captum_is_refused_before_any_training(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("causalcxr.bias.saliency.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"causalcxr\[bias\]', or set saliency_rows=0"):
        run_study(read_settings(StudyConfig, study_file, [f"run={tmp_path / 'run'}"]))
    assert not (tmp_path / "run").exists()


def test_what_is_best_is_not_known_of_what_is_recorded(study_file: Path, tmp_path: Path) -> None:
    """Underdiagnosis is no matter of q alone: gaps stand in the place of the index, and nowhere else."""
    few = [f"run={tmp_path / 'run'}", "mitigate=[]", "seeds=[0]", "q=[0.8]", "saliency_rows=0", "probe_rows=0"]
    found = run_study(
        read_settings(StudyConfig, study_file, [*few, "plant.missed={marker: 1.0, underdiagnosis: 0.5}"])
    )
    has = {cell.bias.kind: "index" in cell.measured.statistics for cell in found.cells}
    assert has == {"marker": True, "nothing": True, "missed": False}
    assert "missed: gap" in write_report(found).read_text()
    unseen = run_study(
        read_settings(StudyConfig, study_file, [*few[1:], f"run={tmp_path / 'b'}", "data.knobs.finding_volume=1"])
    )
    assert not any("index" in cell.measured.statistics for cell in unseen.cells)


def test_who_is_not_selected_keeps_a_place_in_the_batch(study: Study, study_file: Path) -> None:
    """With weight 0, so that batches are the twin's; the validation rows, which calibrate, are without them."""
    config = read_settings(StudyConfig, study_file, ["plant.lost={marker: 1.0, selection: 0.9}"])
    films, network = study.opened.films, Network(Bias("lost"), 0.8, 0)
    train, val = (training_rows(films, config, network, split) for split in ("train", "val"))
    lost = ~films.selected(0.8, 0.9)
    assert len(train) == 96 and lost[:96].sum() > 10
    assert np.array_equal(train.weight[train.numbers] == 0, lost[:96])
    assert not lost[val.numbers].any()


def test_one_process_at_a_time(study_file: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"), pytest.raises(RunError, match="another process works on the study"):
        run_study(read_settings(StudyConfig, study_file, [f"run={tmp_path}"]))


def test_prepared_data_with_a_bias_are_refused(study_file: Path, tmp_path: Path) -> None:
    data = ["data.train=40", "data.val=20", "data.test=20", "data.planted={group: {marker: 1.0}}"]
    config = read_settings(StudyConfig, study_file, [*data, f"data.cache={tmp_path / 'cache'}"])
    cohort = open_cohort(config.data, load_graph("chest"))
    again = read_settings(
        StudyConfig, study_file, [f"data.prepared={cohort.folder.parent}", f"run={tmp_path / 'run'}"]
    )
    with pytest.raises(CausalCXRError, match=r"planted|prepared"):
        run_study(again)


def _sleep(folder: Path, job: int) -> None:
    (folder / f"{os.getpid()}").touch()
    time.sleep(60)


def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """Of two workers that have begun, none is left ten seconds after SIGKILL of their parent."""
    context = multiprocessing.get_context("spawn")
    parent = context.Process(target=run_jobs, args=("jobs", _sleep, tmp_path, [1, 2], 0, 2))
    parent.start()
    deadline = time.monotonic() + 120
    while len(workers := [int(path.name) for path in tmp_path.iterdir()]) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    parent.kill()
    parent.join()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(workers) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in workers)
