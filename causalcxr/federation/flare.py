"""The nvflare engine: our coordinator in the server's controller, our worker in every client's executor.

Nvflare starts the processes, connects them (with TLS in a provisioned project), and carries one parameter: a
packed message, the bytes of a safetensors file. The order of visits and every mean are ours. See docs/sites.md.
"""

import json
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from filelock import FileLock, Timeout
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.workflows.model_controller import ModelController
from nvflare.job_config.api import FedJob
from nvflare.recipe import SimEnv
from nvflare.recipe.spec import Recipe

from causalcxr.config import read_settings, to_yaml
from causalcxr.data.config import expand
from causalcxr.data.preparation import open_cohort
from causalcxr.federation.config import OwnDataConfig, SitesConfig, check_sites_config, site_attribute
from causalcxr.federation.coordinator import Coordinator
from causalcxr.federation.kits import ALLOWED, OWN_DATA
from causalcxr.federation.messages import Message
from causalcxr.federation.models import key_of, make_run
from causalcxr.federation.sites import Site, make_sites, site_shares
from causalcxr.federation.strategies import STRATEGIES
from causalcxr.federation.worker import Worker
from causalcxr.graph import Graph, graph_from_dict
from causalcxr.support.errors import CausalCXRError, ConfigError, RunError, TrainingError
from causalcxr.support.files import write_atomically
from causalcxr.training.pipeline import launch
from causalcxr.training.stages import check_stages

__all__ = [
    "CoordinatorController",
    "SiteExecutor",
    "client_names",
    "export",
    "make_recipe",
    "simulate",
]

TASK, PARAMETER = "answer", "message"
TOLD = ("begin", "keep", "save")


class CoordinatorController(ModelController):
    """Trains by a strategy over named clients, from the last round that the run folder has."""

    def __init__(
        self,
        settings: str,
        graph: str,
        strategy: str,
        seed: int,
        names: list,
        sites: list,
        folder: str,
        patience: int = 600,
        task_check_period: float = 0.05,
    ):
        """`settings`, `graph`: YAML. `names`: of the clients, `sites`: their names in the study, in its order."""
        super().__init__(persistor_id="", ignore_result_error=True, task_check_period=task_check_period)
        self.settings, self.graph, self.strategy, self.seed = settings, graph, strategy, seed
        self.names, self.sites, self.folder, self.patience = names, sites, folder, patience
        self.task_check_period = task_check_period
        self.lost: list[str] = []
        self.register_event_handler(EventType.CLIENT_DISCONNECTED, self._note_lost)

    def run(self) -> None:
        """The whole training. A failure is one line in `error.txt` of the run folder, and ends the job."""
        folder = Path(self.folder)
        trouble = folder / "error.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock", timeout=0):
                trouble.unlink(missing_ok=True)
                self._train()
        except Timeout:
            self.panic(f"another job works on the run '{folder}'; wait for it, or choose another run=")
        except Exception as error:
            line = str(error) if isinstance(error, CausalCXRError) else f"{type(error).__name__}: {error}"
            write_atomically(trouble, line + "\n")
            self.panic(line)

    def exchange(self, which: Sequence[str], message: Message) -> dict[str, Message]:
        """Ask clients by name, all at once; their answers by name. Raises TrainingError: one has none."""
        content = np.frombuffer(message.pack(), dtype=np.uint8)
        model = FLModel(params_type=ParamsType.FULL, params={PARAMETER: content})
        answers: Any = self.send_model_and_wait(
            task_name=TASK, data=model, targets=list(which), timeout=self.patience
        )
        found = {answer.meta["client_name"]: answer for answer in answers}
        silent = [name for name in which if name not in found]
        where = f"{message.part or 'the beginning'}, '{message.kind}'"
        if self.lost:
            raise TrainingError(f"{where}: the connection to {', '.join(self.lost)} is lost; {_GO_ON}")
        if silent:
            how = "the job was stopped" if self.abort_signal.triggered else f"no answer within {self.patience} s"
            raise TrainingError(f"{where}: {how}, still waiting for {', '.join(silent)}; {_GO_ON}")
        for name in which:
            if "error" in found[name].meta:
                raise TrainingError(f"{where}: client '{name}': {found[name].meta['error']}")
        return {name: Message.unpack(_bytes(found[name].params)) for name in which}

    def _train(self) -> None:
        torch.set_flush_denormal(True)
        folder = Path(self.folder)
        config, graph = _read(self.settings, self.graph, folder)
        run = make_run(config, graph, folder, self.seed)
        worker = Worker(run, config, launch(run.config.train))
        counted = self.exchange(self.names, Message("rows", ""))
        sizes = [counted[name].facts["rows"] for name in self.names]
        _refuse_other_job(folder, key_of(config, run, f"{self.strategy}-{self.seed}", [self.names, sizes]))
        shares = site_shares(config, graph, self.sites, sizes)
        Coordinator(worker, _FlareEngine(self, worker), config, self.strategy, sizes, shares).train()

    def _note_lost(self, event_type: str, fl_ctx: FLContext) -> None:
        self.lost.append(str(fl_ctx.get_prop(FLContextKey.DISCONNECTED_CLIENT_NAME)))


_GO_ON = "what was done is kept: run the same again to go on"


class _FlareEngine:
    """Carries messages to the clients of a controller."""

    def __init__(self, controller: CoordinatorController, worker: Worker):
        self.controller, self.worker = controller, worker

    def ask(self, questions: Sequence[tuple[int, Message]]) -> list[Message]:
        """All at once. The questions differ in their facts alone; every client picks its own."""
        names, (_, first) = self.controller.names, questions[0]
        each = {names[site]: dict(message.facts) for site, message in questions}
        asked = Message(first.kind, first.part, {"each": each}, first.state)
        answers = self.controller.exchange(list(each), asked)
        return [answers[names[site]] for site, _ in questions]

    def tell(self, message: Message) -> None:
        self.worker.take_in(message)
        self.controller.exchange(self.controller.names, message)


class SiteExecutor(Executor):
    """Answers with this client's films: those that `local/causalcxr.yaml` names, or its share of the study's."""

    def __init__(self, settings: str, graph: str, seed: int, names: list, sites: list, own_data: bool = False):
        """`own_data`: `local/causalcxr.yaml` must be there. `names`, `sites`: as the controller has them."""
        super().__init__()
        self.own_data = own_data
        self.settings, self.graph, self.seed, self.names, self.sites = settings, graph, seed, names, sites
        self._worker: Worker | None = None
        self._site: Site | None = None

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """One message answered.

        Of a TrainingError the line leaves the site, of any other error its kind alone: the line may name a
        path or a patient.
        """
        if task_name != TASK:
            return make_reply(ReturnCode.TASK_UNKNOWN)
        try:
            answer = self._answer(Message.unpack(_bytes(from_shareable(shareable).data)), fl_ctx)
        except Exception as error:
            trouble = self._folder(fl_ctx) / "trouble.txt"
            write_atomically(trouble, traceback.format_exc())
            print(f"causalcxr: {error}; see '{trouble}'", file=sys.stderr, flush=True)  # stays at the site
            told = isinstance(error, TrainingError)
            line = str(error) if told else f"{type(error).__name__}; the rest is in trouble.txt of the job there"
            return _shareable(Message("error", ""), {"error": line})
        return _shareable(answer, {})

    def _answer(self, message: Message, fl_ctx: FLContext) -> Message:
        name = str(fl_ctx.get_identity_name())
        if self._worker is None or self._site is None:
            self._open(name, fl_ctx)
        assert self._worker is not None and self._site is not None
        if message.kind in TOLD:
            self._worker.take_in(message)
            return Message(message.kind, message.part)
        own = message.facts["each"][name] if "each" in message.facts else message.facts
        return self._worker.answer(self._site, Message(message.kind, message.part, own, message.state))

    def _open(self, name: str, fl_ctx: FLContext) -> None:
        torch.set_flush_denormal(True)
        folder, number = self._folder(fl_ctx), self.names.index(name)
        config, graph = _read(self.settings, self.graph, folder)
        own = self._own_data(fl_ctx)
        if own.exists():
            size, config.data = config.data.size, read_settings(OwnDataConfig, own).data
            if config.data.size != size:
                raise TrainingError(f"its data.size is {config.data.size}; expected the study's, {size}")
            if expand(config.data.cache).is_relative_to(Path(_workspace(fl_ctx).get_root_dir()).absolute()):
                raise TrainingError(f"data.cache in its local/{OWN_DATA} is in the kit's folder; expected another")
        elif self.own_data:
            raise TrainingError(f"it has no file local/{OWN_DATA}, which says where its films are")
        cohort = open_cohort(config.data, graph)
        by = site_attribute(config)
        if own.exists() and by and (cohort.manifest[by] != self.sites[number]).any():
            raise TrainingError(f"it has films whose '{by}' is not '{self.sites[number]}'")
        if own.exists():
            self._site = Site(self.sites[number], *(cohort.split(split) for split in ("train", "val", "test")))
        else:
            self._site = {site.name: site for site in make_sites(config, cohort)}[self.sites[number]]
        run = make_run(config, graph, folder / "run", self.seed)
        self._worker = Worker(run, config, launch(run.config.train))

    def _folder(self, fl_ctx: FLContext) -> Path:
        """This client's folder of the job."""
        return Path(_workspace(fl_ctx).get_run_dir(fl_ctx.get_job_id()))

    def _own_data(self, fl_ctx: FLContext) -> Path:
        return Path(_workspace(fl_ctx).get_site_config_dir()) / OWN_DATA


def make_recipe(
    config: SitesConfig,
    graph: Graph,
    names: Sequence[str],
    sites: Sequence[str],
    folder: Path,
    strategy: str,
    seed: int,
    own_data: bool = False,
) -> Recipe:
    """The job of one model: to run in an environment of nvflare, or to export.

    `names`: of the clients. `sites`: their names in the study. `folder`: of the run, at the server. `own_data`:
    whether every client must have films of its own.
    """
    settings, declared = to_yaml(config), yaml.safe_dump(graph.to_dict(), sort_keys=False, allow_unicode=True)
    names, sites = list(names), list(sites)
    job = FedJob(name=f"{strategy}-{seed}", min_clients=len(names), mandatory_clients=names, fail_fast=True)
    job.set_app_packages(["causalcxr"])
    controller = CoordinatorController(
        settings, declared, strategy, seed, names, sites, str(folder.absolute()), config.patience
    )
    job.to_server(controller)
    job.to_server({"server": {"task_request_interval": 0.1}})
    job.to_clients(SiteExecutor(settings, declared, seed, names, sites, own_data), tasks=[TASK])
    return Recipe(job)


def export(config: SitesConfig, graph: Graph, clients: Sequence[str], out: Path) -> Path:
    """Write the job of a study's one strategy and seed for a provisioned project; the job's folder.

    `clients`: the names that the project gives the hospitals, in the order of the site's labels if the graph has
    a site. Raises ConfigError: more than one model, or another number of clients.
    """
    check_sites_config(config, graph)
    if len(config.strategies) != 1 or config.strategies[0] not in STRATEGIES or len(config.seeds) != 1:
        raise ConfigError(
            f"a job is one model: expected one strategy of {', '.join(STRATEGIES)} and one seed, got "
            f"strategies={config.strategies}, seeds={config.seeds}"
        )
    by = site_attribute(config)
    sites = list(graph[by].labels) if by else list(clients)
    if len(sites) != len(clients) or len(set(clients)) < len(clients) or not clients:
        wanted = f"{len(sites)} names, one a label of '{by}'" if by else "a name for each hospital"
        raise ConfigError(f"--clients: expected {wanted}, each once, got {', '.join(clients) or 'none'}")
    (strategy,), (seed,) = config.strategies, config.seeds
    run = make_run(config, graph, Path(config.run), seed)
    check_stages(run)
    Worker(run, config, launch(config.train))  # what it refuses shows now, and not at a hospital
    recipe = make_recipe(config, graph, clients, sites, Path(config.run), strategy, seed, own_data=True)
    recipe.export(str(out))
    return out / f"{strategy}-{seed}"


def client_names(sites: Sequence[str]) -> list[str]:
    """Names that nvflare takes, one a site."""
    digits = len(str(len(sites)))
    return [f"{i + 1:0{digits}d}-{re.sub(r'[^A-Za-z0-9]+', '-', site).strip('-')}" for i, site in enumerate(sites)]


def simulate(
    config: SitesConfig, graph: Graph, sites: Sequence[Site], folder: Path, strategy: str, seed: int
) -> None:
    """Train one model in nvflare's simulator, a process a site. Raises TrainingError: a client failed."""
    names = [site.name for site in sites]
    config = replace(config, data=replace(config.data, cache=str(expand(config.data.cache))))
    recipe = make_recipe(config, graph, client_names(names), names, folder, strategy, seed)
    try:  # a simulator outlives a parent that was killed, and holds this lock
        with FileLock(folder / ".lock", timeout=0):
            pass
    except Timeout:
        raise RunError(f"another job works on the run '{folder}'; wait until it has ended") from None
    trouble = folder / "error.txt"
    trouble.unlink(missing_ok=True)
    workspace = Path(tempfile.mkdtemp(prefix="causalcxr-"))  # nvflare takes no spaces in its path
    try:
        local = workspace / f"{strategy}-{seed}" / "local"
        local.mkdir(parents=True)
        (local / "resources.json").write_text(json.dumps({"format_version": 2, "class_allow_list": [ALLOWED]}))
        recipe.run(SimEnv(clients=client_names(names), workspace_root=str(workspace), log_config="ERROR"))
    except RuntimeError as error:
        raise TrainingError(
            trouble.read_text().strip() if trouble.exists() else f"nvflare: {str(error).partition('. Logs')[0]}"
        ) from None
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    if trouble.exists() or not (folder / "model.safetensors").exists():
        raise TrainingError(trouble.read_text().strip() if trouble.exists() else "nvflare ended without a model")


def _read(settings: str, graph: str, folder: Path) -> tuple[SitesConfig, Graph]:
    write_atomically(folder / "study.yaml", settings)
    return read_settings(SitesConfig, folder / "study.yaml"), graph_from_dict(yaml.safe_load(graph))


def _refuse_other_job(folder: Path, key: str) -> None:
    """A run goes on with what it was begun with: what its state depends on, and the sites' numbers of films."""
    begun = folder / "job.key"
    if begun.exists() and begun.read_text() != key:
        raise RunError(
            f"run '{folder}' was begun with other settings or other films; choose another run= or delete it"
        )
    write_atomically(begun, key)


def _workspace(fl_ctx: FLContext) -> Any:
    engine: Any = fl_ctx.get_engine()
    return engine.get_workspace()


def _bytes(params: Any) -> bytes:
    return np.asarray(params[PARAMETER], dtype=np.uint8).tobytes()


def _shareable(message: Message, meta: dict[str, str]) -> Shareable:
    content = np.frombuffer(message.pack(), dtype=np.uint8)
    return DXO(DataKind.WEIGHTS, data={PARAMETER: content}, meta=meta).to_shareable()
