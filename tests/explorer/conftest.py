"""A page of two small runs: its explorer in this process, and its server as the command starts it."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from causalcxr.commands.explore import open_explorer
from causalcxr.explorer.explorer import Explorer

SECONDS_TO_START = 120  # on a busy machine; benchmarks/explorer.py measures it


@pytest.fixture(scope="session")
def runs(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs of the same data; the second is a copy whose image mechanism has other weights."""
    import torch

    from causalcxr.runs import load, open_run

    other = tmp_path_factory.mktemp("explored") / "other"
    shutil.copytree(tiny_run, other)
    scm, generator = load(other), torch.Generator().manual_seed(0)
    for parameter in scm.image_mechanism.parameters():
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    open_run(other).save_model(scm, open_run(other).finished_stages())
    return [tiny_run, other]


@pytest.fixture(scope="session")
def explorer(runs: list[Path]) -> Explorer:
    return open_explorer([str(run) for run in runs])


class Server:
    """The command `causalcxr explore`, and a client of it."""

    def __init__(self, runs: list[Path]):
        command = [sys.executable, "-m", "causalcxr", "explore", *map(str, runs)]
        threads = {"OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | threads
        )
        self.url = self._url()

    def _url(self) -> str:
        assert self.process.stdout is not None and self.process.stderr is not None
        begun = time.monotonic()
        while time.monotonic() - begun < SECONDS_TO_START:
            line = self.process.stdout.readline()
            if "http://" in line:
                return next(word for word in line.split() if word.startswith("http://"))
            if self.process.poll() is not None:
                break
        raise AssertionError(f"the server did not start: {self.process.stderr.read()}")

    def ask(self, question: Any) -> Any:
        """What the page gets: the answer, or a dict with an error."""
        return json.loads(self.send("answer", json.dumps(question).encode(), "application/json"))

    def send(
        self, path: str, content: bytes, kind: str = "application/octet-stream", name: str = "x.png"
    ) -> bytes:
        headers = {"Content-Type": kind, "X-Name": name}
        request = urllib.request.Request(self.url + path, content, headers)
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()

    def upload(self, content: bytes, name: str = "x.png") -> Any:
        return json.loads(self.send("film", content, name=name))

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=20)


@pytest.fixture(scope="session")
def server(runs: list[Path]) -> Iterator[Server]:
    pytest.importorskip("uvicorn", reason="the page needs the extra 'explorer'")
    server = Server(runs)
    yield server
    server.close()
