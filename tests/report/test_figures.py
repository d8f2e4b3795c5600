"""Figures of images: what is drawn where, on which scale."""

import numpy as np
import pytest
import torch
from PIL import Image

from causalcxr.graph import load_graph
from causalcxr.report.charts import attribute_chart, curves_chart, graph_picture
from causalcxr.report.figures import (
    Band,
    as_picture,
    bands_figure,
    counterfactual_grid,
    difference_limit,
    save_png,
)
from causalcxr.report.gallery import caption, choose_rows
from causalcxr.support.errors import RunError

FACTUAL = torch.full((1, 8, 8), 0.5)


def drawn(figure):
    """The arrays of all pictures of a figure, in the order in which they were drawn."""
    return [axes.get_images()[0] for axes in figure.axes if axes.get_images()]


def test_grid_shows_images_and_their_signed_differences():
    brighter, darker = FACTUAL + 20 / 255, FACTUAL - 40 / 255
    figure = counterfactual_grid([FACTUAL, brighter, darker], ["factual", "do(a = 1)", "do(a = 2)"])
    images = drawn(figure)
    assert len(images) == 5  # three images, two differences
    np.testing.assert_allclose(images[1].get_array(), 0.5 + 20 / 255)
    np.testing.assert_allclose(images[3].get_array(), 20, atol=1e-4)  # float32 at 255
    np.testing.assert_allclose(images[4].get_array(), -40, atol=1e-4)
    assert images[3].get_clim() == images[4].get_clim() == (-40, 40)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["factual", "do(a = 1)", "do(a = 2)"]


def test_grid_with_exact_answers_has_one_scale_for_both():
    figure = counterfactual_grid([FACTUAL, FACTUAL + 0.1], ["", ""], exact=[FACTUAL, FACTUAL + 0.2], limit=30)
    images = drawn(figure)
    assert len(images) == 6
    assert images[2].get_clim() == images[5].get_clim() == (-30, 30)


def test_changed_lines_of_a_caption_are_marked():
    captions = [["female", "age 50 years"], ["male", "age 50 years"]]
    figure = counterfactual_grid([FACTUAL, FACTUAL], ["factual", "do(sex = male)"], captions)
    weights = {text.get_text(): text.get_fontweight() for axes in figure.axes[:2] for text in axes.texts}
    assert weights == {"female": "normal", "male": "bold", "age 50 years": "normal"}


def test_scale_fits_all_but_the_largest_differences():
    changed = FACTUAL.clone()
    changed[0, 0, 0] += 0.4  # one of 64 pixels, above the 99 % quantile
    changed[0, 1:] += 10 / 255
    assert 10 <= difference_limit([[FACTUAL, changed]]) < 100
    assert difference_limit([[FACTUAL, FACTUAL]]) == 1


def test_pictures_from_whatever_a_batch_holds():
    assert as_picture(torch.full((1, 2, 2), 255, dtype=torch.uint8)).tolist() == [[1, 1], [1, 1]]
    assert as_picture(np.zeros((3, 4, 5))).shape == (4, 5, 3)
    assert as_picture(torch.full((2, 2), 1.5)).max() == 1


def test_a_long_title_is_broken():
    figure = bands_figure([Band("", [FACTUAL])], ["do(finding = Pleural Effusion)"])
    assert figure.axes[0].get_title() == "do(finding =\nPleural Effusion)"


def test_png_is_written_whole(tmp_path):
    figure = counterfactual_grid([FACTUAL, FACTUAL], ["$x^2$", "a_b$"])  # no formula is made of a label
    save_png(figure, tmp_path / "new" / "grid.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["grid.png"]
    assert Image.open(tmp_path / "new" / "grid.png").convert("L").getextrema()[0] < 200
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(RunError, match="could not write"):
        save_png(figure, tmp_path / "taken.png")
    assert list(tmp_path.glob(".*")) == []  # nothing half-written is left


def test_charts_of_every_pair_of_kinds(tmp_path):
    """Digit by nothing, intensity by thickness as a scatter; finding by age in bands."""
    generator = np.random.default_rng(0)
    morpho, chest = load_graph("morphomnist"), load_graph("chest")
    values = {
        "digit": generator.integers(0, 10, 200),
        "thickness": generator.gamma(10, 0.2, 200),
        "intensity": generator.uniform(64, 255, 200),
    }
    figure = attribute_chart(morpho, values, values)
    assert figure is not None
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["digit", "thickness", "intensity", "intensity by thickness"]
    people = {
        "sex": generator.integers(0, 2, 50),
        "race": generator.integers(0, 2, 50),  # one label has no rows
        "age": generator.uniform(20, 90, 50),
        "finding": np.zeros(50, dtype=int),
    }
    figure = attribute_chart(chest, people, people)
    assert figure is not None
    save_png(figure, tmp_path / "chart.png")
    bars = [bar.get_height() for bar in figure.axes[1].patches]
    assert bars[2] == bars[5] == 0
    for graph in (morpho, chest):
        texts = {text.get_text() for text in graph_picture(graph).axes[0].texts if text.get_text()}
        assert texts == set(graph.variables)


def test_curves_take_one_panel_per_stage_and_variable():
    lines = [
        {"stage": "attributes", "step": step, "split": split, "sex": 0.7 - 0.01 * step}
        for step in (1, 2)
        for split in ("train", "val")
    ]
    lines.append({"stage": "image", "step": 1, "split": "train", "image": None})
    figure = curves_chart(lines, ("sex", "image"))
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == ["attributes: sex, nats", "image: image, bits / dim"]
    assert curves_chart([], ("sex",)) is None


def test_gallery_rows_show_many_combinations():
    graph = load_graph("chest")
    batch = {
        "sex": torch.tensor([0, 0, 0, 1, 0]),
        "race": torch.tensor([0, 0, 0, 0, 2]),
        "age": torch.tensor([50.0, 51, 52, 53, 54]),
        "finding": torch.tensor([0, 0, 0, 1, 1]),
    }
    assert set(choose_rows(graph, batch, 3)) == {0, 3, 4}
    assert sorted(choose_rows(graph, batch, 9)) == [0, 1, 2, 3, 4]
    assert caption(graph, batch, 3) == ["male", "white", "age 53", "Pleural Effusion"]
