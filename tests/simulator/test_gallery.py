"""Figures are drawn without a display, say what they show, and are written whole."""

from pathlib import Path

from PIL import Image

from causalcxr.report.figures import save_png
from causalcxr.simulator import Knobs, gallery


def test_contact_sheet(tmp_path: Path) -> None:
    figure = gallery.contact_sheet(seed=1, ids=range(5), size=32, columns=3, knobs=Knobs(ap_share=0.5))
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == 5
    assert all(title.split(", ")[0] in ("female", "male") and title.endswith(("PA", "AP")) for title in titles)
    save_png(figure, tmp_path / "sheet.png", 50)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (round(3 * 1.75 * 50), 195)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]


def test_counterfactual_grid_shares_one_symmetric_scale() -> None:
    figure = gallery.counterfactual_grid(seed=0, ids=[0, 1], size=32)
    maps = [image for axes in figure.axes for image in axes.images if image.get_cmap().name == "RdBu_r"]
    limits = {image.get_clim() for image in maps}
    assert len(maps) == 8
    assert len(limits) == 1
    low, high = limits.pop()
    assert low == -high < 0
    assert max(abs(image.get_array()).max() for image in maps) <= high + 1e-6
    assert sum("do(age = 30)" in axes.get_title() for axes in figure.axes) == 2
