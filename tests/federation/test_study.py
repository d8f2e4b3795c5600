"""Whole studies: every part over sites, resumed bit for bit; what is sent; what goes wrong at a site."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

import causalcxr
from causalcxr.commands.main import main
from causalcxr.config import read_settings
from causalcxr.data.cohort import Split
from causalcxr.data.preparation import open_cohort
from causalcxr.federation.config import SitesConfig
from causalcxr.federation.coordinator import Coordinator
from causalcxr.federation.local import LocalEngine
from causalcxr.federation.messages import MOMENT, Message
from causalcxr.federation.models import parts_of
from causalcxr.federation.report import as_json, write_report
from causalcxr.federation.sites import Site, everybody, make_sites, open_sites_graph
from causalcxr.federation.study import Job, Study, run_study
from causalcxr.federation.worker import Worker
from causalcxr.metrics.auroc import auroc
from causalcxr.support.errors import CausalCXRError, RunError, TrainingError

PARTS = ["attributes", "predictor", "evaluator", "image", "outputs", "finetune"]


def again(path: Path, *settings: str) -> Study:
    return run_study(read_settings(SitesConfig, path, settings))


def files(folder: Path) -> dict[str, bytes]:
    """Weights of a run, and what it says of the test films."""
    names = ("model.safetensors", "predictor.safetensors", "evaluator.safetensors")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


def separate(study: Study, strategy: str, folder: Path, listening: list[Message] | None = None) -> list[Worker]:
    """Train with a worker for each site, as over a network: all messages packed. The sites' workers afterwards."""
    opened = study.opened
    run = replace(opened.run_of(Job(strategy, 0)), folder=folder)
    fabric = Fabric(accelerator="cpu", devices=1)
    workers = [Worker(run, opened.config, fabric) for _ in range(len(opened.sites) + 1)]

    class Engine:
        def ask(self, questions: Sequence[tuple[int, Message]]) -> Iterator[Message]:
            for site, message in questions:
                answer = workers[site].answer(opened.sites[site], Message.unpack(message.pack()))
                if listening is not None:
                    listening.append(answer)
                yield Message.unpack(answer.pack())

        def tell(self, message: Message) -> None:
            for worker in workers:
                worker.take_in(Message.unpack(message.pack()))

    sizes = [len(site.train) for site in opened.sites]
    shares = [size / sum(sizes) for size in sizes]
    Coordinator(workers[-1], Engine(), opened.config, strategy, sizes, shares).train()
    return workers


# ---------------------------------------------------------------- what is trained


def test_a_whole_causal_model_is_learned_over_sites(hospitals: Study) -> None:
    for each in hospitals.trained:
        assert list(each.histories) == PARTS
        assert all(history.rounds == 2 for history in each.histories.values())
        assert all(np.isfinite(list(history.test.values())).all() for history in each.histories.values())
    scm = causalcxr.load(hospitals.opened.folder / "travelling-0")
    found = scm.counterfactual(hospitals.opened.test.batch(range(4)), do={"race": "black"})
    assert found["image"].shape == (4, 1, 32, 32) and found["image"].isfinite().all()


def test_the_law_of_the_site_is_that_of_the_films(hospitals: Study) -> None:
    """Known from the numbers of rows: 5 : 3 : 2. It is not trained, for a site sees itself alone."""
    scm = causalcxr.load(hospitals.opened.folder / "fedavg-0")
    drawn = scm.sample(4000)["site"]
    assert (torch.bincount(drawn) / 4000 - torch.tensor([0.5, 0.3, 0.2])).abs().max() < 0.04  # 5 standard errors


def test_every_site_is_visited_once_a_round(hospitals: Study, dealt: Study) -> None:
    (travelling,) = hospitals.of("travelling")
    assert all(history.visits == [2, 2, 2] for history in travelling.histories.values())
    (fedtm, _) = dealt.of("fedtm")
    assert fedtm.histories["predictor"].visits == [3, 3, 3, 2]  # one film is too few for the round that averages


def test_central_takes_as_many_steps_as_all_sites_together(dealt: Study) -> None:
    """Visits of 4, 2, 1 and 1 steps of 8, 8, 6 and 1 films are 8 steps of 7, the mean, rounded."""
    central, travelling = dealt.of("central")[0], dealt.of("travelling")[0]
    assert sum(travelling.histories["predictor"].trained_rows) == 3 * (4 * 8 + 2 * 8 + 6 + 1)
    assert central.histories["predictor"].trained_rows == [3 * 8 * 7]


def test_seeds_and_strategies_differ(dealt: Study) -> None:
    weights = [files(dealt.opened.folder / each.job.name)["predictor.safetensors"] for each in dealt.trained]
    assert len(set(weights)) == len(weights)


def test_scores_are_what_the_model_says(dealt: Study) -> None:
    """Mean absolute error and AUROC by hand, mean over seeds; by group too."""
    test, found = dealt.opened.test, dealt.measured["fedavg"]
    ages = [each.scores["age"] for each in dealt.of("fedavg")]
    by_hand = [float((age - test.attributes["age"]).abs().mean()) for age in ages]
    assert found["age"].overall.value == pytest.approx(np.mean(by_hand), rel=1e-6)
    assert found["age"].by_seed == pytest.approx(by_hand, rel=1e-6)
    logits = [each.scores["finding"] for each in dealt.of("fedavg")]
    answers = test.attributes["finding"].numpy() == 1
    areas = [auroc((score[:, 1] - score[:, 0]).numpy(), answers) for score in logits]
    assert found["finding"].overall.value == pytest.approx(np.mean(areas), rel=1e-6)
    men = (test.attributes["sex"] == 1).numpy()
    errors = np.mean([(age - test.attributes["age"]).abs().numpy()[men].mean() for age in ages])
    assert found["age"].by_group["sex"]["male"] == pytest.approx(errors, rel=1e-6)


# ---------------------------------------------------------------- resuming


@pytest.mark.parametrize("questions", [3, 40])
def test_a_killed_study_ends_where_a_whole_one_does(
    questions: int, hospitals: Study, hospitals_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the first rounds, and in those of a later part; bit for bit."""
    asked = LocalEngine.ask

    def killed(self: LocalEngine, of: Sequence[tuple[int, Message]]) -> Iterator[Message]:
        nonlocal questions
        for answer in asked(self, of):
            questions -= 1
            if questions < 0:
                raise KeyboardInterrupt
            yield answer

    settings = [f"run={tmp_path / 'run'}", "strategies=[travelling,fedavg]"]
    with monkeypatch.context() as patched:
        patched.setattr(LocalEngine, "ask", killed)
        with pytest.raises(KeyboardInterrupt):
            again(hospitals_file, *settings)
    again(hospitals_file, *settings)
    for name in ("travelling-0", "fedavg-0"):
        assert files(tmp_path / "run" / name) == files(hospitals.opened.folder / name)


def test_what_is_done_is_not_done_again(dealt: Study, dealt_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patched:
        patched.setattr(Coordinator, "train", never)
        assert as_json(again(dealt_file)) == as_json(dealt)
        assert list(again(dealt_file, "strategies=[fedavg]").measured) == ["fedavg"]


def test_another_setting_is_another_model(dealt_file: Path, tmp_path: Path) -> None:
    few = [f"run={tmp_path / 'run'}", "strategies=[fedprox]", "seeds=[0]"]
    before = files(again(dealt_file, *few).opened.folder / "fedprox-0")
    after = files(again(dealt_file, *few, "mu=5.0").opened.folder / "fedprox-0")
    assert before != after
    assert files(again(dealt_file, *few).opened.folder / "fedprox-0") == before


def test_what_does_not_matter_is_not_trained_again(dealt: Study, dealt_file: Path) -> None:
    """Nor what matters to another strategy, or to a stage that is not there."""
    free = ["train.threads=1", "train.log_every=7", "rounds.image=3", "train.image.steps=3"]
    places = [dealt.opened.folder / each.job.name / "scores.safetensors" for each in dealt.trained]
    before = [place.stat().st_mtime_ns for place in places]
    again(dealt_file, *free)
    assert [place.stat().st_mtime_ns for place in places] == before


def test_a_study_killed_as_it_began_goes_on(dealt_file: Path, tmp_path: Path) -> None:
    """Its folder is known by study.yaml, which is written first."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.yaml").write_text("")
    again(dealt_file, f"run={tmp_path / 'run'}", "strategies=[fedavg]", "seeds=[0]", "rounds.predictors=1")


def test_a_folder_of_something_else_is_refused(dealt_file: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="holds something else"):
        again(dealt_file, f"run={tmp_path}")


# ---------------------------------------------------------------- what is sent


@pytest.mark.parametrize("strategy", ["fedavg", "travelling"])
def test_nothing_leaves_a_site_but_weights_rows_and_losses(
    strategy: str, hospitals: Study, tmp_path: Path
) -> None:
    """Every answer of every site is read: which numbers, and which tensors by name and shape."""
    heard: list[Message] = []
    workers = separate(hospitals, strategy, tmp_path / "run", heard)
    assert {message.kind for message in heard} == {"template", "prepare", "bound", "visit", "losses", "calibrate"}
    facts = {"prepare": {"ranges"}, "bound": {"loss", "rows"}, "visit": {"rows"}, "calibrate": {"rows"}}
    models = {name: value.shape for worker in workers for name, value in state_of(worker).items()}
    for message in heard:
        assert set(message.facts) <= facts.get(message.kind, {"rows", "losses"})
        if message.kind == "losses":
            assert not message.state and set(message.facts["losses"]) <= {*message_names(hospitals), "constraint"}
        for name, value in message.state.items():
            weight = name.removeprefix(MOMENT).partition("/")[2] if name.startswith(MOMENT) else name
            tail = weight.partition(".")[2]
            assert any(other.endswith(tail) for other in models), name
            assert value.ndim == 0 or value.shape in models.values(), name


def state_of(worker: Worker) -> dict[str, torch.Tensor]:
    found = dict(worker.models.scm.state_dict())
    for predictor in worker.models.predictors.values():
        found |= predictor.state_dict()
    assert worker.models.outputs is not None and worker.learner is not None
    return found | worker.models.outputs.state_dict() | worker.learner.objective.state_dict()


def message_names(study: Study) -> list[str]:
    graph = study.opened.graph
    outputs = [f"output of {name}" for name in graph.attributes]
    outputs += [f"output of {n}: {label}" for n in graph.attributes for label in graph[n].labels]
    return [*graph.variables, *outputs]


@pytest.mark.parametrize("strategy", ["fedavg", "travelling"])
def test_sites_of_their_own_end_with_the_same_state(strategy: str, hospitals: Study, tmp_path: Path) -> None:
    """With a worker each, as over a network: all hold the same in the end, buffers included, and it is that of the
    local engine, whose sites share a worker."""
    workers = separate(hospitals, strategy, tmp_path / "run")
    expected = state_of(workers[-1])
    for worker in workers[:-1]:
        found = state_of(worker)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    assert files(tmp_path / "run") == files(hospitals.opened.folder / f"{strategy}-0")


def test_a_message_arrives_as_it_was_sent() -> None:
    sent = Message("visit", "image", {"rows": 3, "losses": {"x": 0.25}}, {"w": torch.arange(6.0).view(2, 3)})
    found = Message.unpack(sent.pack())
    assert (found.kind, found.part, found.facts) == (sent.kind, sent.part, sent.facts)
    assert torch.equal(found.state["w"], sent.state["w"])
    damaged = sent.pack()[:-1] + b"\xff"
    for content in (damaged, damaged[:20], b""):
        with pytest.raises(RunError, match="a message is damaged"):
            Message.unpack(content)


# ---------------------------------------------------------------- what goes wrong at a site


class Spoilt(Split):
    """A split whose ages are not numbers."""

    def batch(self, indices: Any) -> dict[str, torch.Tensor]:
        found = super().batch(indices)
        return {**found, "age": torch.full_like(found["age"], torch.nan)}


def test_a_site_with_bad_numbers_stops_the_run_with_its_name(
    dealt_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is lost: mended, the run goes on, and ends where it would have ended."""
    settings = [f"run={tmp_path / 'run'}", "strategies=[travelling]", "seeds=[0]", "train.max_bad_steps=0"]
    settings += ["rounds.predictors=4"]
    whole = again(dealt_file, f"run={tmp_path / 'whole'}", *settings[1:])
    answer = Worker.answer

    def spoilt(self: Worker, site: Site, message: Message) -> Message:
        if site.name == "site 2" and message.kind == "visit" and message.facts["round_"] == 2:
            split = site.train
            site = replace(site, train=Spoilt(split.cohort, split.name, split.rows))
        return answer(self, site, message)

    with monkeypatch.context() as patched:
        patched.setattr(Worker, "answer", spoilt)
        line = r"site 'site 2': stage 'predictor', .*loss of 'age'.* train\.predictors\.learning_rate"
        with pytest.raises(TrainingError, match=line):
            again(dealt_file, *settings)
    again(dealt_file, *settings)
    found, expected = (files(folder / "travelling-0") for folder in (tmp_path / "run", whole.opened.folder))
    assert found == expected
    assert len(again(dealt_file, *settings, "skip=[site 2]").opened.sites) == 3


def test_a_model_that_has_diverged_is_no_result(dealt_file: Path, tmp_path: Path) -> None:
    settings = [f"run={tmp_path / 'run'}", "strategies=[travelling]", "train.predictors.learning_rate=1e9"]
    with pytest.raises(TrainingError, match=r"site '.*not finite.*lower train\.predictors\.learning_rate"):
        again(dealt_file, *settings)


def test_where_states_are_averaged_a_site_of_one_label_does_not_train_its_head(dealt: Study) -> None:
    """Site 4 has one film, and so one label of everything: alone it would learn to say nothing else."""
    opened = dealt.opened
    config = replace(opened.config, predict=["finding"])
    worker = Worker(opened.run_of(Job("fedavg", 0)), config, Fabric(accelerator="cpu", devices=1))
    worker.take_in(Message("begin", "predictor", {"rounds": 3}))
    state = worker.state()

    def visit(site: int, averaged: bool) -> Message:
        facts = {"round_": 0, "steps": 1, "batch_size": 1, "averaged": averaged}
        return worker.answer(opened.sites[site], Message("visit", "predictor", facts, state))

    idle = visit(3, averaged=True)
    assert idle.facts == {"rows": 0} and all(torch.equal(idle.state[name], state[name]) for name in state)
    assert visit(3, averaged=False).facts == {"rows": 1}
    assert visit(0, averaged=True).facts == {"rows": 30}


def test_the_site_itself_is_not_predicted(hospitals: Study) -> None:
    """Nobody can learn at one place what tells places apart: that head stays as it was made."""
    run = hospitals.opened.run_of(Job("travelling", 0))
    begun = Worker(run, hospitals.opened.config, Fabric(accelerator="cpu", devices=1)).models.predictor
    trained = run.load_predictor("predictor")
    site = trained.index["site"]
    assert torch.equal(begun.linear[site].weight, trained.linear[site].weight)
    assert not torch.equal(
        begun.linear[trained.index["finding"]].weight, trained.linear[trained.index["finding"]].weight
    )
    assert "site" not in hospitals.measured["travelling"]


# ---------------------------------------------------------------- making sites


def test_films_are_dealt_out_once(dealt: Study) -> None:
    sites = dealt.opened.sites
    assert [len(site.train) for site in sites] == [30, 16, 6, 1]
    assert sum(len(site.test) for site in sites) == 120
    for split in ("train", "val", "test"):
        rows = np.concatenate([getattr(site, split).rows for site in sites])
        assert len(np.unique(rows)) == len(rows)
    assert len(everybody(sites).train) == 53


def test_hospitals_are_the_labels_of_their_attribute(hospitals: Study) -> None:
    sites = hospitals.opened.sites
    assert {site.name: len(site.train) for site in sites} == {"A": 30, "B": 18, "C": 12}
    for i, site in enumerate(sites):
        assert (site.train.attributes["site"] == i).all() and (site.test.attributes["site"] == i).all()
    assert "site" in hospitals.opened.graph["image"].parents and "site" in hospitals.opened.graph["race"].parents


def test_any_attribute_with_labels_can_be_the_site(dealt_file: Path) -> None:
    config = read_settings(SitesConfig, dealt_file, ["sizes=[]", "by=race"])
    cohort = open_cohort(config.data, open_sites_graph(config))
    assert [site.name for site in make_sites(config, cohort)] == ["white", "asian", "black"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["strategies=[fedavgg]"], "strategies has 'fedavgg'; did you mean 'fedavg'"),
        (["strategies=[]"], "strategies is empty"),
        (["seeds=[1,1]"], "seeds is [1, 1]; expected each value once"),
        (["predict=[agee]"], "predict has 'agee', which is no attribute; did you mean 'age'"),
        (["by=age", "sizes=[]"], "by is 'age', which is a number"),
        (["by=sex"], "three ways to make sites"),
        (["sizes=[]"], "who the sites are is not said"),
        (["sizes=[0, 3]"], "at least one film a site"),
        (["sizes=[100]"], "sizes are 100 films together, but the training split has 60"),
        (["each=100", "sizes=[]"], "each is 100, but the training split has 60"),
        (["skip=[site 9]"], "skip has 'site 9', which is no site"),
        (["skip=[site 1, site 2, site 3, site 4]"], "leaves no site"),
        (["moments=stay"], "'moments' is 'stay'; expected one of: travel, reset"),
        (["train.precision=16-mixed"], "its scale does not travel"),
        (["train.stages=[finetune]"], "'finetune' needs"),
        (["train.stages=[predictor]"], "'train.stages' has 'predictor'; did you mean 'predictors'"),
        (["sizes=[]", "by=race", "predict=[race]"], "predict has 'race', which is the site"),
        (["data.sites={A: {}, B: {}}"], "data.sites makes the sites itself"),
        (["data.sites={A: {exposur: 1.0}}", "sizes=[]"], "no law 'exposur'; did you mean 'exposure'"),
        (["sizes=[]", "by=finding", "predict=[age]"], "by is 'finding', which age cause; no site alone"),
        (["train.stages=[attributes,predictors,image]"], "expected none, for counterfactuals are scored by all"),
        (["train.predictors.accumulate=2"], "train.predictors.accumulate is 2; expected 1"),
        (["enough=100"], "fedtm averages sites of enough=100 films or more; the largest has 30"),
        (["model.predictor.architecture=resnet18"], "'resnet18' has batch norm, whose statistics do not travel"),
    ],
)
def test_what_cannot_be_is_one_clear_line(
    settings: list[str], expected: str, dealt_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(CausalCXRError, match=re.escape(expected)):
        again(dealt_file, f"run={tmp_path / 'run'}", *settings)


# ---------------------------------------------------------------- report and command


def test_intervals_are_within_what_can_be(dealt: Study) -> None:
    for found in dealt.measured.values():
        assert 0 <= found["finding"].overall.low <= found["finding"].overall.high <= 1
        assert found["age"].overall.low >= 0
        for measured in found.values():
            assert all(spread.low <= spread.value <= spread.high for spread in measured.disparity.values())


def test_the_report_says_what_happened(dealt: Study) -> None:
    page = re.sub(r"base64,\S+", "", write_report(dealt).read_text())
    for strategy in dealt.measured:
        assert strategy in page
    assert "NaN" not in page and "nan" not in page.split()
    found = json.loads((dealt.opened.folder / "study.json").read_text())
    assert found["strategies"]["fedtm"]["age"]["overall"]["n"] == 120
    moved = found["models"][0]["parts"]["predictor"]
    assert moved["bytes_out"] > 0 and moved["visits"] == [3]


def test_the_report_of_a_whole_model(hospitals: Study) -> None:
    page = write_report(hospitals).read_text()
    assert "finetune" in page and "The sites are the labels of" in page


def test_the_command(dealt_file: Path, dealt: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites", "train", str(dealt_file)]) == 0
    said = capsys.readouterr().out
    assert "AUROC of finding: central" in said and "report: " in said
    assert main(["sites", "--help"]) == 0
    assert "mu=0.01" in capsys.readouterr().out
    assert main(["sites", "train", "nowhere.yaml"]) == 2
    assert "no study 'nowhere.yaml'" in capsys.readouterr().err


def test_parts_follow_the_stages(hospitals: Study) -> None:
    config = hospitals.opened.run_of(Job("central", 0)).config
    assert parts_of(config) == PARTS
    assert parts_of(replace(config, train=replace(config.train, stages=["predictors"]))) == ["predictor"]
    soft = replace(config, finetune=replace(config.finetune, targets="soft"))
    assert parts_of(soft) == [part for part in PARTS if part != "outputs"]
