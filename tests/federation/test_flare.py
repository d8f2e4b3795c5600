"""The nvflare engine: the same weights as the local one, one parameter on the wire, one line when a site fails."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from causalcxr.commands.main import main
from causalcxr.config import read_settings, to_yaml
from causalcxr.federation.config import SitesConfig
from causalcxr.federation.messages import Message
from causalcxr.federation.sites import open_sites_graph
from causalcxr.federation.study import Study, run_study
from causalcxr.support.errors import TrainingError
from causalcxr.support.files import load_tensors

pytest.importorskip("nvflare")

from nvflare.apis.dxo import DXO, DataKind, from_shareable

from causalcxr.federation.flare import PARAMETER, TASK, SiteExecutor, client_names
from causalcxr.federation.kits import OWN_DATA, prepare_kit

FEW = ("predict=[age]", "sizes=[30,6]", "seeds=[0]", "rounds.predictors=2", "patience=120")


@pytest.fixture(autouse=True)
def _arithmetic() -> Iterator[None]:
    """An executor flushes denormal numbers in its process, which is another one in earnest."""
    yield
    torch.set_flush_denormal(False)


def study(path: Path, folder: Path, *settings: str) -> Study:
    return run_study(read_settings(SitesConfig, path, [*FEW, f"run={folder}", *settings]))


@pytest.mark.parametrize("strategy", ["fedavg", "travelling"])
def test_both_engines_give_the_same_weights(strategy: str, dealt_file: Path, tmp_path: Path) -> None:
    """And every site is visited as often: the order and the means are ours in both."""
    found = []
    for engine in ("local", "nvflare"):
        settings = (f"strategies=[{strategy}]", f"engine={engine}")
        (trained,) = study(dealt_file, tmp_path / engine, *settings).trained
        weights = load_tensors(tmp_path / engine / trained.job.name / "predictor.safetensors")[0]
        found.append((weights, trained.histories["predictor"]))
    (local, here), (remote, there) = found
    assert local.keys() == remote.keys()
    for name, value in local.items():
        assert torch.allclose(remote[name].double(), value.double(), rtol=1e-6, atol=1e-7), name
    assert (here.visits, here.trained_rows, here.bytes_in) == (there.visits, there.trained_rows, there.bytes_in)


def test_a_site_that_fails_is_one_line(dealt_file: Path, tmp_path: Path) -> None:
    """Of the site, what it did, and the mend; the round before is kept."""
    bad = (
        "strategies=[travelling]",
        "engine=nvflare",
        "train.predictors.learning_rate=1e30",
        "train.max_bad_steps=0",
    )
    with pytest.raises(TrainingError, match=r"client '\d-site-\d': site 'site \d': .*not finite") as caught:
        study(dealt_file, tmp_path / "run", *bad)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- the executor, without nvflare around it


class Context:
    """What the executor asks of nvflare."""

    def __init__(self, folder: Path, name: str):
        self.folder, self.name = folder, name
        (folder / "local").mkdir(parents=True, exist_ok=True)

    def get_identity_name(self) -> str:
        return self.name

    def get_job_id(self) -> str:
        return "job"

    def get_engine(self) -> Any:
        workspace = SimpleNamespace(
            get_root_dir=lambda: str(self.folder),
            get_run_dir=lambda job: str(self.folder / job),
            get_site_config_dir=lambda: str(self.folder / "local"),
        )
        return SimpleNamespace(get_workspace=lambda: workspace)


def executor(path: Path, *settings: str) -> SiteExecutor:
    import yaml

    config = read_settings(SitesConfig, path, [*FEW, *settings])
    names, graph = ["site 1", "site 2"], yaml.safe_dump(open_sites_graph(config).to_dict())
    return SiteExecutor(to_yaml(config), graph, 0, client_names(names), names)


def ask(of: SiteExecutor, context: Context, message: Message) -> tuple[Message, dict[str, Any]]:
    """The answer, and what else stands beside it on the wire."""
    content = np.frombuffer(message.pack(), dtype=np.uint8)
    sent = DXO(DataKind.WEIGHTS, data={PARAMETER: content}).to_shareable()
    answer = from_shareable(of.execute(TASK, sent, context, None))  # type: ignore[arg-type]
    assert list(answer.data) == [PARAMETER]  # nothing but one message leaves
    return Message.unpack(answer.data[PARAMETER].tobytes()), answer.meta


def test_a_site_answers_with_its_own_share(dealt_file: Path, tmp_path: Path) -> None:
    of, context = executor(dealt_file), Context(tmp_path, "2-site-2")
    answer, beside = ask(of, context, Message("rows", ""))
    assert answer.facts["rows"] == 6 and set(beside) <= {"error"} and "error" not in beside
    assert not ask(of, context, Message("begin", "predictor", {"rounds": 2}))[0].facts
    facts = {"each": {"2-site-2": {"round_": 0, "steps": 1, "batch_size": 6}}}
    state = ask(of, context, Message("losses", "predictor", {"split": "test"}, _state(of)))[0]
    assert set(state.facts) == {"rows", "losses"} and not state.state
    visited = ask(of, context, Message("visit", "predictor", facts, _state(of)))[0]
    assert visited.facts == {"rows": 6} and visited.state.keys() >= _state(of).keys()


def _state(of: SiteExecutor) -> dict[str, torch.Tensor]:
    assert of._worker is not None
    return of._worker.state()


def test_a_hospital_has_films_of_its_own(dealt_file: Path, tmp_path: Path) -> None:
    """Which no other client can name: the settings lie in its own folder, and its whole cohort is the site."""
    context = Context(tmp_path / "kit", "1-site-1")
    own_data(context, cache=str(tmp_path / "cache"))
    answer, _ = ask(executor(dealt_file), context, Message("rows", ""))
    assert answer.facts["by_split"] == {"train": 9, "val": 4, "test": 5}


def own_data(context: Context, **changed: Any) -> None:
    data = {"size": 32, "train": 9, "val": 4, "test": 5, "seed": 3} | changed
    (context.folder / "local" / OWN_DATA).write_text(json.dumps({"data": data}))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"size": 64}, "its data.size is 64; expected the study's, 32"),
        ({"cache": "kit/cache"}, "data.cache in its local/causalcxr.yaml is in the kit's folder"),
        ({"source": "folder", "root": "/patients/of/ward/7"}, "DataError; the rest is in trouble.txt"),
        (None, "it has no file local/causalcxr.yaml"),
    ],
)
def test_what_a_hospital_sets_wrong_is_told_without_its_paths(
    changed: dict[str, Any] | None,
    expected: str,
    dealt_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The server gets the first line; the hospital sees all of it."""
    monkeypatch.chdir(tmp_path)
    context = Context(tmp_path / "kit", "1-site-1")
    if changed is not None:
        own_data(context, **({"cache": str(tmp_path / "cache")} | changed))
    of = executor(dealt_file)
    of.own_data = True
    _, beside = ask(of, context, Message("rows", ""))
    assert expected in beside["error"] and "/" not in beside["error"].replace("local/causalcxr.yaml", "")
    assert "causalcxr: " in capfd.readouterr().err


def test_a_hospital_has_films_of_its_own_place_alone(dealt_file: Path, tmp_path: Path) -> None:
    context = Context(tmp_path / "kit", "1-site-1")
    own_data(context, cache=str(tmp_path / "cache"))
    of = executor(dealt_file, "sizes=[]", "by=race")
    of.sites = ["white", "asian"]
    assert "films whose 'race' is not 'white'" in ask(of, context, Message("rows", ""))[1]["error"]


def test_of_an_error_that_is_not_ours_the_kind_alone_leaves(
    dealt_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text may hold a patient; that stays in a file at the site."""
    of, context = executor(dealt_file), Context(tmp_path, "1-site-1")
    ask(of, context, Message("rows", ""))

    def private(*_: Any) -> None:
        raise ValueError("patient 4711 is odd")

    monkeypatch.setattr(of._worker, "answer", private)
    answer, beside = ask(of, context, Message("rows", ""))
    assert beside == {"error": "ValueError; the rest is in trouble.txt of the job there"} and not answer.state
    assert "4711" in (tmp_path / "job" / "trouble.txt").read_text()


# ---------------------------------------------------------------- jobs for hospitals


def test_a_job_is_exported(dealt_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = ["sites", "export", str(dealt_file), "strategies=[fedavg]", "seeds=[1]", "sizes=[]"]
    assert main([*one, "--clients", "alpha", "beta", "--out", str(tmp_path)]) == 0
    folder = tmp_path / "fedavg-1"
    assert f"job: {folder}" in capsys.readouterr().out
    text = "".join(path.read_text() for path in folder.rglob("*.json"))
    assert "causalcxr.federation.flare.CoordinatorController" in text and "alpha" in text
    assert not list(folder.rglob("*.py"))  # a job holds settings and no code


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["strategies=[fedavg,travelling]", "seeds=[0]", "--clients", "a"], "a job is one model"),
        (["strategies=[central]", "seeds=[0]", "--clients", "a"], "a job is one model"),
        (["strategies=[fedavg]", "seeds=[0]"], "expected a name for each hospital, each once, got none"),
        (["strategies=[fedavg]", "seeds=[0]", "--clients", "a", "a"], "each once, got a, a"),
        (["strategies=[fedavg]", "seeds=[0]", "sizes=[]", "by=race", "--clients", "a"], "3 names, one a label of"),
    ],
)
def test_a_job_that_cannot_be_is_one_line(
    words: list[str], expected: str, dealt_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sites", "export", str(dealt_file), *words, "--out", str(tmp_path)]) == 2
    assert expected in capsys.readouterr().err


# ---------------------------------------------------------------- startup kits


def kit(folder: Path, who: str) -> Path:
    """As provisioning writes one, as far as it matters here."""
    components = [{"id": "site_log_streamer"}, {"id": "log_receiver"}, {"id": "else"}]
    components += [{"id": "job_manager", "args": {"uri_root": "/tmp/jobs"}}]
    storage = {"args": {"root_dir": "/tmp/snapshots"}}
    resources = {"components": components, "snapshot_persistor": {"args": {"storage": storage}}, "kept": 1}
    rights = {"permissions": {"project_admin": "any", "lead": {"byoc": "any", "view": "any"}}}
    (folder / "local").mkdir(parents=True)
    (folder / "startup").mkdir()
    (folder / "startup" / f"fed_{who}.json").write_text("{}")
    (folder / "local" / "resources.json.default").write_text(json.dumps(resources))
    (folder / "local" / "authorization.json.default").write_text(json.dumps(rights))
    return folder


@pytest.mark.parametrize("who", ["server", "client"])
def test_a_kit_lets_our_jobs_run_and_nothing_else(who: str, tmp_path: Path) -> None:
    """And a second time changes nothing."""
    folder = kit(tmp_path / "kit", who)
    written = prepare_kit(folder)
    resources = json.loads((folder / "local" / "resources.json").read_text())
    assert resources["class_allow_list"] == ["causalcxr."] and resources["kept"] == 1
    assert [each["id"] for each in resources["components"]] == ["else", "job_manager"]
    rights = json.loads((folder / "local" / "authorization.json").read_text())["permissions"]
    assert all(granted["byoc"] == granted["shell_commands"] == "none" for granted in rights.values())
    assert rights["lead"]["view"] == rights["project_admin"]["submit_job"] == "any"
    assert (resources["components"][1]["args"]["uri_root"] == "/tmp/jobs") == (who == "client")
    assert (folder / "local" / OWN_DATA).exists() == (who == "client")
    before = [path.read_bytes() for path in written]
    prepare_kit(folder)
    assert [path.read_bytes() for path in written] == before


def test_what_a_hospital_has_filled_in_is_kept(tmp_path: Path) -> None:
    folder = kit(tmp_path / "kit", "client")
    (folder / "local" / OWN_DATA).write_text("mine")
    prepare_kit(folder)
    assert (folder / "local" / OWN_DATA).read_text() == "mine"


def test_the_command_that_prepares_a_kit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites", "prepare", str(kit(tmp_path / "kit", "client"))]) == 0
    assert "resources.json" in capsys.readouterr().out
    assert main(["sites", "prepare", str(tmp_path)]) == 2
    assert "is no startup kit" in capsys.readouterr().err
