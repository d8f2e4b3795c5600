#!/usr/bin/env bash
# nvflare 2.9.0: "*" stands for any task where an executor is registered, and for none where a filter is.
#
# A job registers its executor and a filter on the results, both with tasks=["*"], so that whatever a client sends
# passes the filter. The executor answers; the filter is never called, and nothing says so. With the task's name it
# is. Whoever counts, rounds or removes something in a filter should name every task, and test that it runs.
#
# Seen: calls of the filter with "*" 0, with the name of the task 1; the executor answered both times.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet nvflare==2.9.0 numpy==2.4.6
cat > "$folder/parts.py" <<'PYTHON'
from pathlib import Path

from nvflare.apis.dxo import DXO, DataKind
from nvflare.apis.executor import Executor
from nvflare.apis.filter import Filter
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.model_controller import ModelController


class AskOnce(ModelController):
    def __init__(self):
        super().__init__(persistor_id="")

    def run(self):
        model = FLModel(params={"w": [0.0]}, params_type="FULL")
        self.send_model_and_wait(task_name="train", data=model, targets=["hospital"])


class Answer(Executor):
    def __init__(self, log: str):
        super().__init__()
        self.log = log

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        with Path(self.log).open("a") as file:
            file.write("executor\n")
        return DXO(DataKind.WEIGHTS, data={"w": [1.0]}).to_shareable()


class Note(Filter):
    def __init__(self, log: str):
        super().__init__()
        self.log = log

    def process(self, shareable, fl_ctx):
        with Path(self.log).open("a") as file:
            file.write("filter\n")
        return shareable
PYTHON
cat > "$folder/run.py" <<'PYTHON'
import sys
from pathlib import Path

import nvflare
from nvflare.job_config.api import FedJob
from nvflare.job_config.defs import FilterType
from nvflare.recipe import SimEnv
from nvflare.recipe.spec import Recipe
from parts import Answer, AskOnce, Note

folder = Path(sys.argv[1])
found = {}
for i, tasks in enumerate((["*"], ["train"])):
    log = folder / f"log{i}"
    job = FedJob(name=f"job{i}", min_clients=1)
    job.to_server(AskOnce())
    job.to_clients(Answer(str(log)), tasks=["*"])
    job.to_clients(Note(str(log)), tasks=tasks, filter_type=FilterType.TASK_RESULT)
    Recipe(job).run(SimEnv(clients=["hospital"], workspace_root=str(folder / "work"), log_config="ERROR"))
    calls = log.read_text().split()
    found[tasks[0]] = {"executor": calls.count("executor"), "filter": calls.count("filter")}
print(nvflare.__version__, found)
assert found == {"*": {"executor": 1, "filter": 0}, "train": {"executor": 1, "filter": 1}}, "changed"
PYTHON
cd "$folder" && venv/bin/python run.py "$folder"
echo "as described"
