"""What holds for every cohort: built once and whole, the same bytes each time, read from the map."""

import dataclasses
import errno
import hashlib
import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf
from PIL import Image

from causalcxr.data import building, open_cohort, prepare
from causalcxr.data import preparation as cohort
from causalcxr.data.cohort import open_folder
from causalcxr.data.config import DataConfig
from causalcxr.graph import graph_from_dict
from causalcxr.support.errors import DataError

KILLED = """
import os, signal
from causalcxr.data import building, prepare
from causalcxr.data.cohort import open_folder
from causalcxr.data.config import DataConfig
from causalcxr.graph import load_graph

def read_and_die(source, rows, sizes, workers):
    yield source.pixels(rows[:3], sizes)
    os.kill(os.getpid(), signal.SIGKILL)

building._decode = read_and_die
prepare(DataConfig(source="folder", root={root!r}, cache={cache!r}, size=16), load_graph("chest_without_race"))
"""


def left_in(cache: str) -> list[str]:
    return sorted(path.name for path in Path(cache).glob("*") if path.name != ".locks")


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_second_call_finds_it(make_folder, rows, chest, monkeypatch):
    config = make_folder(rows)
    folder = prepare(config, chest)
    monkeypatch.setattr(cohort, "build", None)  # calling it would fail
    assert prepare(config, chest) == folder
    assert prepare(dataclasses.replace(config, workers=3), chest) == folder
    assert folder.name.startswith("folder-16-") and sorted(content(folder)) == [
        "card.html",
        "cohort.json",
        "images.npy",
        "manifest.csv",
        "rejected.csv",
    ]


def test_the_bytes_do_not_depend_on_the_number_of_workers(make_folder, rows, chest, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "CHUNK", 3)  # several chunks
    many = [
        row | {"path": f"images/{i}.jpg", "patient_id": f"{row['split']}{i}"} for i, row in enumerate(rows * 8)
    ]
    many[7]["age"] = "413"
    config = make_folder(many)
    (Path(config.root) / "images/20.jpg").write_bytes(b"broken")
    one, four, again = (
        prepare(dataclasses.replace(config, workers=workers, cache=str(tmp_path / name)), chest)
        for workers, name in ((1, "one"), (4, "four"), (4, "again"))
    )
    assert content(one) == content(four) == content(again)
    assert json.loads((one / "cohort.json").read_text())["rejected"] == {"out of range": 1, "broken image": 1}


def test_what_the_content_depends_on_names_the_folder(make_folder, rows, chest):
    config = make_folder(rows)
    folders = {prepare(config, chest)}
    for change in ({"size": 8}, {"limit": 2}, {"separator": ";"}, {"labels": {"sex": {"male": "male"}}}):
        folders.add(prepare(dataclasses.replace(config, **change), chest))
    image = Path(config.root, "images/0.png")
    Image.fromarray(np.asarray(Image.open(image))[::-1].copy()).save(image)
    folders.add(prepare(config, chest))
    make_folder([row | {"age": "44"} for row in rows])
    folders.add(prepare(config, chest))
    assert len(folders) == 7


def test_the_hash_is_that_of_the_files(make_folder, rows, chest):
    opened = open_cohort(make_folder(rows), chest)
    files = [(opened.folder / name).read_bytes() for name in ("images.npy", "manifest.csv")]
    assert opened.data_hash == hashlib.sha256(b"".join(files)).hexdigest()


def test_batches_come_from_the_map_without_decoding(make_folder, rows, chest, monkeypatch):
    config = make_folder(rows)
    opened = open_cohort(config, chest)
    shutil.rmtree(config.root)  # nothing is left to decode
    monkeypatch.setattr(Image, "open", None)
    assert isinstance(opened.images.base, np.memmap) and not opened.images.flags.writeable
    stored = np.load(opened.folder / "images.npy", allow_pickle=False)
    train = opened.split("train")
    for indices in ([3, 1, 1], np.array([3, 1, 1]), torch.tensor([3, 1, 1])):
        batch = train.batch(indices)
        assert batch["image"].dtype == torch.uint8 and batch["image"].shape == (3, 1, 16, 16)
        assert np.array_equal(batch["image"].numpy(), stored[[3, 1, 1]])
        assert batch["age"].tolist() == [46.5, 35.5, 35.5] and batch["age"].dtype == torch.float32
        assert batch["sex"].tolist() == [1, 1, 1] and batch["sex"].dtype == torch.int64
    batch["image"].zero_()  # a copy: the cohort keeps its pixels
    assert np.array_equal(opened.images, stored)


def test_an_unknown_split(make_folder, rows, chest):
    with pytest.raises(DataError, match="no split 'valid'; did you mean 'val'"):
        open_cohort(make_folder(rows), chest).split("valid")


def test_one_line_is_logged(make_folder, rows, chest, caplog):
    rows[0]["age"] = "413"
    config = make_folder(rows)
    with caplog.at_level(logging.INFO, "causalcxr"):
        folder = prepare(config, chest)
        prepare(config, chest)
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder.name}: kept 7 of 8 rows (train 3, val 2, test 2); rejected: out of range 1; "
        f"see '{folder / 'card.html'}'"
    ]


def test_a_killed_preparation_is_cleared_by_the_next(make_folder, rows, chest):
    config = make_folder(rows)
    code = KILLED.format(root=config.root, cache=config.cache)
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert [name[:16] for name in left_in(config.cache)] == [".building-folder"]
    folder = prepare(dataclasses.replace(config, size=8), chest)  # another cohort in the same cache
    assert left_in(config.cache) == [folder.name]
    assert len(open_cohort(config, chest).manifest) == 8


def test_a_preparation_under_way_is_not_cleared(make_folder, rows, chest):
    config = make_folder(rows)
    busy = Path(config.cache, ".building-folder-16-0123456789ab")
    busy.mkdir(parents=True)
    Path(config.cache, ".locks").mkdir()
    with FileLock(Path(config.cache, ".locks", "folder-16-0123456789ab")):
        folder = prepare(config, chest)
    assert left_in(config.cache) == [busy.name, folder.name]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
def test_an_interrupted_preparation_leaves_nothing(make_folder, rows, chest, monkeypatch, error):
    config = make_folder(rows)

    def stop(path, sizes, channels):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("causalcxr.data.readers.folder.read_sizes", stop)
        with pytest.raises(type(error)):
            prepare(config, chest)
    assert left_in(config.cache) == []
    assert len(open_cohort(config, chest).manifest) == 8


def test_processes_that_want_the_same_cohort_build_it_once(make_folder, rows, chest, monkeypatch):
    config, built = make_folder(rows), []

    def counted(folder, *arguments):
        built.append(folder)
        return building.build(folder, *arguments)

    monkeypatch.setattr(cohort, "build", counted)
    threads = [threading.Thread(target=prepare, args=(config, chest)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1 and len(left_in(config.cache)) == 1


def test_a_full_disk_is_one_line_and_leaves_nothing(make_folder, rows, chest):
    config = make_folder(rows, size=256)  # 64 KiB an image, 512 KiB in all
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200 * 1024, hard))  # writing more fails as on a full disk
    try:
        with pytest.raises(DataError, match=r"could not prepare .*; free room or change data.cache") as error:
            prepare(config, chest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value) and left_in(config.cache) == []


def test_a_cache_folder_that_cannot_be_made(make_folder, rows, chest, tmp_path):
    (tmp_path / "file").touch()
    config = make_folder(rows, cache=str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"could not prepare .*file/cache.*: Not a directory; free room"):
        prepare(config, chest)


def test_a_cache_folder_that_is_read_only(make_folder, rows, chest, tmp_path, monkeypatch):
    cache, make = tmp_path / "cache", os.mkdir
    cache.mkdir()

    def refuse(path, *arguments, **options):
        """As the system does it, whoever asks: a read-only folder does not stop the superuser."""
        if cache in Path(path).absolute().parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        make(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(DataError, match=r"could not prepare .*: Permission denied; free room"):
        prepare(make_folder(rows), chest)
    assert not list(cache.iterdir())


def truncate(folder: Path) -> None:
    file = folder / "images.npy"
    os.truncate(file, file.stat().st_size - 1)


def save_images(shape: tuple[int, ...], dtype: type):
    return lambda folder: np.save(folder / "images.npy", np.zeros(shape, dtype))


def save_objects(folder: Path) -> None:
    np.save(folder / "images.npy", np.array([{}] * 8, dtype=object), allow_pickle=True)


def change_manifest(change):
    def damage(folder: Path) -> None:
        change(pd.read_csv(folder / "manifest.csv")).to_csv(folder / "manifest.csv", index=False)

    return damage


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "images.npy").unlink(), "images.npy"),
        (lambda folder: (folder / "manifest.csv").unlink(), "manifest.csv"),
        (lambda folder: (folder / "cohort.json").unlink(), "cohort.json"),
        (lambda folder: (folder / "cohort.json").write_text("{"), "Expecting property name"),
        (lambda folder: (folder / "cohort.json").write_text("{}"), "'kept'"),
        (truncate, "mmap length is greater"),
        (save_images((7, 1, 16, 16), np.uint8), "(7, 1, 16, 16), expected uint8 (8, 1, 16, 16)"),
        (save_images((8, 1, 16, 16), np.float32), "float32"),
        (save_objects, "object"),
        (change_manifest(lambda table: table[:-1]), "manifest.csv has 7 rows, cohort.json says 8"),
        (change_manifest(lambda table: table.assign(sex="F")), "'sex' has no label 'F'"),
        (change_manifest(lambda table: table.assign(age=413)), "413 is not in [0, 100] years"),
        (change_manifest(lambda table: table.drop(columns="age")), "age"),
    ],
)
def test_a_damaged_cohort_says_to_delete_it(make_folder, rows, chest, damage, named):
    config = make_folder(rows)
    folder = prepare(config, chest)
    damage(folder)
    with pytest.raises(DataError) as error:
        open_cohort(config, chest)
    message = str(error.value)
    assert "\n" not in message and named in message and f"'{folder}' is damaged" in message
    assert message.endswith("delete it to prepare anew")
    shutil.rmtree(folder)
    assert len(open_cohort(config, chest).manifest) == 8


def test_the_defaults_are_a_configuration_that_omegaconf_takes():
    merged = OmegaConf.merge(
        OmegaConf.structured(DataConfig), {"labels": {"sex": {"F": "female"}}, "knobs": {"a": 1}}
    )
    assert OmegaConf.to_object(merged) == DataConfig(labels={"sex": {"F": "female"}}, knobs={"a": 1.0})


def test_the_graph_may_change_its_edges_and_keep_the_cohort(make_folder, rows, chest):
    declared = chest.to_dict()
    declared["variables"]["finding"]["parents"] = ["sex", "age"]
    config = make_folder(rows)
    assert prepare(config, chest) == prepare(config, graph_from_dict(declared))


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "null",
        '{"kept": 3}',
        '{"kept": {"train": "4"}}',
        '{"kept": {"train": 8}, "graph": {"variables": [1]}}',
    ],
)
def test_a_description_of_another_form_is_damage(make_folder, rows, chest, content):
    config = make_folder(rows)
    folder = open_cohort(config, chest).folder
    (folder / "cohort.json").write_text(content)
    with pytest.raises(DataError, match="is damaged") as caught:
        open_folder(folder, config.size, chest)
    assert "\n" not in str(caught.value)


def test_an_empty_file_of_images_is_damage(make_folder, rows, chest):
    config = make_folder(rows)
    folder = open_cohort(config, chest).folder
    (folder / "images.npy").write_bytes(b"")
    with pytest.raises(DataError, match="is damaged"):
        open_folder(folder, config.size, chest)
