"""The notebook runs from top to bottom, in an empty folder, without a network."""

import pytest

from tests.docs.pages import NOTEBOOKS

SECONDS_A_CELL = 300  # training takes half a minute of one core


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the notebook's own machinery
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(notebook, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MPLBACKEND", raising=False)  # figures go into the notebook
    monkeypatch.setenv("PYTHONPATH", str(notebook.parents[2]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    read = nbformat.read(notebook, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(read, timeout=SECONDS_A_CELL, kernel_name="python3", resources=resources).execute()
    drawn = [o for cell in read.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(drawn) == 3
