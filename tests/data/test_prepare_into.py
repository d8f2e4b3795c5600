"""Preparation into a folder: killed and gone on with, at several sizes, taken by training wherever it lies."""

import dataclasses
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from causalcxr.data import building, open_cohort, prepare, prepare_into
from causalcxr.data.images import read_image, read_sizes
from causalcxr.graph import graph_from_dict, load_graph
from causalcxr.support.errors import ConfigError, DataError

ROWS, CHUNK, SIZES = 480, 8, (8, 12)
# A source whose every 17th image is broken, and whose pixels follow from its key, the row and the size.
SOURCE = f"""
import time
import numpy as np, pandas as pd
from causalcxr.data import DataConfig, building, prepare_into
from causalcxr.data.source import Source, Unusable
from causalcxr.graph import load_graph

building.CHUNK = {CHUNK}
read = []

def table():
    return pd.DataFrame({{
        "path": [str(i) for i in range({ROWS})], "patient_id": [f"p{{i // 2}}" for i in range({ROWS})],
        "sex": ["female" if i % 3 else "male" for i in range({ROWS})],
        "age": [str(20 + i % 60) for i in range({ROWS})],
        "finding": ["No Finding" if i % 4 else "Pleural Effusion" for i in range({ROWS})]}})

def run(out, sizes={SIZES}, workers=3, key=1, seconds=0.0):
    def picture(row, size):
        if row % 17 == 0:
            return Unusable("broken image", f"row {{row}}")
        return np.random.default_rng([key, row, size]).integers(0, 256, (1, size, size), dtype=np.uint8)

    def pixels(rows, sizes):
        read.extend(rows)
        time.sleep(seconds * len(rows))
        return [[picture(row, size) for size in sizes] for row in rows]

    source = Source("rows", {{"source": "rows"}}, {{"key": key}}, table, pixels)
    return prepare_into(out, DataConfig(workers=workers), load_graph("chest_without_race"), sizes, source)
"""
# Imports once and forks the processes that are to be killed; prints how each ended.
FORKS = """
import os, random, signal, sys
from causalcxr.data import card, partial, working_folder


def fork(work, seconds=None):
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def slow(monkeypatch) -> dict[str, Any]:
    """What SOURCE defines."""
    monkeypatch.setattr(building, "CHUNK", CHUNK)
    names: dict[str, Any] = {}
    exec(SOURCE, names)
    return names


def content(folder: Path) -> dict[str, bytes]:
    """Every file below by its path, the locks excepted."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.parent.name != ".locks")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def done(out: Path) -> list[int]:
    """Rows that the journal of each size says are done."""
    journals = [out / f".building-{size}" / "journal.jsonl" for size in SIZES]
    return [sum(json.loads(line)["rows"] for line in journal.read_text().splitlines()) for journal in journals]


def run_killed(script: str) -> list[int]:
    """Run a script behind SOURCE and FORKS in a process of its own; how its forks ended."""
    command = [sys.executable, "-c", SOURCE + FORKS + script]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return [int(line) for line in ended.stdout.split()]


def test_killed_at_ten_random_moments_it_ends_in_the_same_bytes(slow, tmp_path):
    slow["run"](tmp_path / "whole")
    script = f"""
random.seed(4)
for _ in range(10):
    fork(lambda: run({str(tmp_path / "killed")!r}, seconds=0.006), random.uniform(0, 0.3))
"""
    statuses = run_killed(script)  # 480 rows take 3 threads about a second, ten forks about one and a half
    assert statuses.count(-signal.SIGKILL) >= 3 and set(statuses) <= {-signal.SIGKILL, 0}
    slow["run"](tmp_path / "killed")
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


BAD_MOMENTS = [
    "partial._line = die",  # images written, not yet noted
    "partial.PartialImages.finish = die",
    "building.content_hash = die",
    "building._write_card = die",
    "working_folder.Path.rename = die",  # all is there but not in its place
    "rename = working_folder.Path.rename; working_folder.Path.rename = lambda a, b: (rename(a, b), die())",
]


def test_killed_at_the_worst_moments_it_ends_in_the_same_bytes(slow, tmp_path):
    slow["run"](tmp_path / "whole")
    folders = [tmp_path / f"killed-{i}" for i in range(len(BAD_MOMENTS))]
    script = "".join(
        f"def work():\n    {moment}\n    run({str(folder)!r})\nfork(work)\n"
        for moment, folder in zip(BAD_MOMENTS, folders, strict=True)
    )
    assert run_killed(script) == [-signal.SIGKILL] * len(BAD_MOMENTS)
    for folder, moment in zip(folders, BAD_MOMENTS, strict=True):
        slow["run"](folder)
        assert content(folder) == content(tmp_path / "whole"), moment


def interrupt(slow: dict[str, Any], out: Path, rows: int, **settings: Any) -> None:
    """Prepare until about so many rows are read, then stop as on Ctrl-C."""

    class Stop(list):
        def extend(self, more):
            if len(self) >= rows:
                raise KeyboardInterrupt
            super().extend(more)

    slow["read"], before = Stop(), slow["read"]
    with pytest.raises(KeyboardInterrupt):
        slow["run"](out, workers=1, **settings)
    slow["read"] = before


def test_what_is_done_is_not_read_again(slow, tmp_path, caplog):
    interrupt(slow, tmp_path, 200)
    finished = done(tmp_path)[0]
    assert done(tmp_path) == [finished] * 2 and 200 - CHUNK <= finished <= 200 and finished % CHUNK == 0
    with caplog.at_level(logging.INFO, "causalcxr"):
        slow["run"](tmp_path)
    assert sorted(slow["read"]) == list(range(finished, ROWS))
    assert caplog.messages[0] == f"goes on behind the {finished} of {ROWS} rows that are prepared"


@pytest.mark.parametrize("damage", ["images", "journal", "cohort"])
def test_what_is_damaged_is_read_again(slow, tmp_path, damage):
    slow["run"](tmp_path / "whole")
    interrupt(slow, tmp_path / "damaged", 200)
    work = tmp_path / "damaged" / ".building-12"
    file = work / ("cohort/images.npy" if damage == "images" else "journal.jsonl")
    if damage == "cohort":
        shutil.rmtree(work / "cohort")
    elif damage == "images":
        with file.open("r+b") as opened:
            opened.seek(file.stat().st_size // 2)
            opened.write(b"\0" * 40)
    else:
        os.truncate(file, file.stat().st_size // 2)
    slow["run"](tmp_path / "damaged")
    assert content(tmp_path / "damaged") == content(tmp_path / "whole")
    read = len(slow["read"]) - ROWS  # the whole one read all of them
    assert read == ROWS if damage == "cohort" else ROWS - 200 < read < ROWS  # about half of what was done is good


def test_leftovers_of_another_key_are_not_used(slow, tmp_path):
    slow["run"](tmp_path / "whole", key=2)
    interrupt(slow, tmp_path / "other", 200, key=1)
    slow["read"].clear()
    slow["run"](tmp_path / "other", key=2)
    assert sorted(slow["read"]) == list(range(ROWS))
    assert content(tmp_path / "other") == content(tmp_path / "whole")


def test_leftovers_of_another_version_are_not_used(slow, tmp_path, monkeypatch):
    interrupt(slow, tmp_path, 200)
    monkeypatch.setattr("causalcxr.data.working_folder.built_by", lambda: {"pillow": "another"})
    slow["run"](tmp_path)
    assert sorted(slow["read"]) == list(range(ROWS))


def test_a_size_that_is_added_reads_all_rows_and_changes_nothing(slow, tmp_path):
    slow["run"](tmp_path / "whole")
    slow["run"](tmp_path / "out", sizes=[8])
    slow["read"].clear()
    slow["run"](tmp_path / "out")
    assert sorted(slow["read"]) == list(range(ROWS))
    slow["run"](tmp_path / "out")
    assert len(slow["read"]) == ROWS  # nothing was left to do
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_bytes_do_not_depend_on_workers_nor_on_other_sizes(slow, tmp_path, workers):
    slow["run"](tmp_path / "together", workers=3)
    for size in SIZES:
        slow["run"](tmp_path / "alone", sizes=[size], workers=workers)
    assert content(tmp_path / "alone") == content(tmp_path / "together")
    assert sorted(content(tmp_path / "alone")) == sorted(
        f"{size}/{name}"
        for size in SIZES
        for name in ("card.html", "cohort.json", "images.npy", "manifest.csv", "rejected.csv")
    )
    described = json.loads((tmp_path / "alone" / "8" / "cohort.json").read_text())
    assert described["rejected"] == {"broken image": 29} and sum(described["kept"].values()) == ROWS - 29


def test_a_full_disk_is_one_line_and_loses_nothing(slow, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # writing more fails as on a full disk
    try:
        with pytest.raises(DataError, match=r"could not prepare .*: File too large; free room") as error:
            slow["run"](tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("choose another folder; the same command then goes on from what is done")
    finished = min(done(tmp_path / "out"))
    assert finished >= 100  # of 144 bytes each
    slow["read"].clear()
    slow["run"](tmp_path / "out")
    assert sorted(slow["read"]) == list(range(finished, ROWS))
    slow["run"](tmp_path / "whole")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_files_are_decoded_once_for_sizes_of_one_fraction(make_folder, rows, chest, tmp_path, monkeypatch):
    config = make_folder(rows)
    converted = []
    convert = Image.Image.convert
    monkeypatch.setattr(Image.Image, "convert", lambda self, mode: converted.append(1) or convert(self, mode))
    prepare_into(tmp_path / "out", config, chest, [8, 12, 16])
    assert len(converted) == len(rows)
    for size in (8, 12, 16):
        images = np.load(tmp_path / "out" / str(size) / "images.npy")
        files = [read_image(Path(config.root, row["path"]), size, 1) for row in rows]
        assert np.array_equal(images, np.stack(files))  # type: ignore[arg-type]


def test_jpegs_at_several_sizes_equal_those_at_one(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(levels).resize((900, 700), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=90)
    sizes = (8, 24, 64, 100, 160, 192)  # decoded at an eighth to the whole
    for size, together in zip(sizes, read_sizes(tmp_path / "a.jpg", sizes, 1), strict=True):
        assert np.array_equal(together, read_image(tmp_path / "a.jpg", size, 1))  # type: ignore[arg-type]


def test_it_is_opened_wherever_it_lies_and_without_its_source(make_folder, rows, chest, tmp_path):
    config = make_folder(rows)
    automatic = open_cohort(config, chest)
    prepare_into(tmp_path / "out", config, chest, [8, 16])
    shutil.rmtree(config.root)
    (tmp_path / "out").rename(tmp_path / "moved")
    moved = dataclasses.replace(config, prepared=str(tmp_path / "moved"), root="gone", source="simulator")
    cohort = open_cohort(moved, chest)
    assert cohort.data_hash == automatic.data_hash and np.array_equal(cohort.images, automatic.images)
    assert content(cohort.folder).keys() == content(automatic.folder).keys()
    for name, file in content(automatic.folder).items():
        assert file == content(cohort.folder)[name], name
    assert open_cohort(dataclasses.replace(moved, size=8), chest).images.shape == (8, 1, 8, 8)


def test_a_graph_may_leave_out_what_the_cohort_has(make_folder, rows, chest, tmp_path):
    config = make_folder(rows)
    prepare_into(tmp_path / "out", config, chest)
    declared = chest.to_dict()
    del declared["variables"]["sex"]
    declared["variables"]["image"]["parents"].remove("sex")
    cohort = open_cohort(dataclasses.replace(config, prepared=str(tmp_path / "out")), graph_from_dict(declared))
    assert list(cohort.manifest) == ["row", "path", "patient_id", "split", "age", "finding"]
    assert torch.equal(
        cohort.split("train").batch([1, 0])["age"], open_cohort(config, chest).split("train").batch([1, 0])["age"]
    )


@pytest.mark.parametrize(
    ("settings", "graph", "named"),
    [
        (
            {"prepared": "nowhere"},
            "chest_without_race",
            "no folder '.*nowhere'; make it with: causalcxr data",
        ),
        ({"size": 32}, "chest_without_race", "no cohort of 32 pixels .data.size., there is 8, 16; the presets"),
        ({}, "chest", "has no 'race', only sex, age, finding, image; set graph="),
        ({}, "labels", "has 'finding' as .'No Finding', 'Pleural Effusion'.*, graph 'chest_without_race' as"),
    ],
)
def test_what_does_not_fit_is_one_line(make_folder, rows, chest, tmp_path, monkeypatch, settings, graph, named):
    monkeypatch.chdir(tmp_path)
    config = make_folder(rows)
    prepare_into("out", config, chest, [8, 16])
    if graph == "labels":
        declared = chest.to_dict()
        declared["variables"]["finding"]["labels"].reverse()
        wanted = graph_from_dict(declared)
    else:
        wanted = load_graph(graph)
    with pytest.raises(DataError, match=named) as error:
        open_cohort(dataclasses.replace(config, **({"prepared": "out"} | settings)), wanted)
    assert "\n" not in str(error.value)


def test_a_folder_with_another_cohort_is_refused(make_folder, rows, chest, tmp_path):
    config = make_folder(rows)
    prepare_into(tmp_path / "out", config, chest)
    before = content(tmp_path / "out")
    with pytest.raises(DataError, match=r"'.*out/16' holds something else, or a cohort of other settings"):
        prepare_into(tmp_path / "out", dataclasses.replace(config, limit=1), chest)
    (tmp_path / "out" / "8").mkdir()
    with pytest.raises(DataError, match=r"'.*out/8' holds something else"):
        prepare_into(tmp_path / "out", config, chest, [8, 16])
    assert content(tmp_path / "out") == before


def test_a_size_that_cannot_be(make_folder, rows, chest, tmp_path):
    with pytest.raises(ConfigError, match=r".data.size. is 0; expected a number of at least 1"):
        prepare_into(tmp_path / "out", make_folder(rows), chest, [16, 0])
    assert not (tmp_path / "out").exists()


def test_the_automatic_cache_goes_on_after_a_kill_too(make_folder, rows, chest, monkeypatch):
    monkeypatch.setattr(building, "CHUNK", 2)
    config = dataclasses.replace(make_folder(rows), workers=1)
    read = []

    def stop(path, sizes, channels):
        if len(read) == 5:
            raise KeyboardInterrupt
        read.append(path)
        return [read_image(path, size, channels) for size in sizes]

    with monkeypatch.context() as patch:
        patch.setattr("causalcxr.data.readers.folder.read_sizes", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(config, chest)
        read.clear()
        patch.setattr(
            "causalcxr.data.readers.folder.read_sizes", lambda *a: read.append(a) or [read_image(a[0], 16, 1)]
        )
        folder = prepare(config, chest)
    assert len(read) == 4 and len(np.load(folder / "images.npy")) == 8
