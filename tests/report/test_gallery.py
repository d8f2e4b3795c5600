"""The gallery's pictures: which interventions are shown of whom."""

import torch

from causalcxr.graph import load_graph
from causalcxr.report import gallery
from causalcxr.report.gallery import Gallery, draw_gallery


def test_an_intervention_that_sets_what_a_subject_has_is_left_out(tmp_path, monkeypatch):
    graph, image = load_graph("chest_without_race"), torch.zeros(2, 1, 8, 8)
    factual = {"sex": torch.tensor([0, 1]), "age": torch.tensor([40.0, 50.0]), "finding": torch.tensor([0, 0])}
    factual["image"] = image
    interventions = [{"sex": "female"}, {"sex": "male"}, {"age": 40.0}]
    made = [factual | {"sex": torch.tensor([i, i])} for i in (0, 1)]
    made.append(factual | {"age": torch.tensor([40.0, 40.0])})
    titles = []

    def grid(images, heads, captions, exact, exact_captions, limit):
        titles.append(heads)
        assert len(images) == len(captions) == len(exact) == len(exact_captions) == len(heads)

    monkeypatch.setattr(gallery, "counterfactual_grid", grid)
    monkeypatch.setattr(gallery, "save_png", lambda figure, path: None)
    drawn = draw_gallery(graph, Gallery(factual, interventions, made, made, image, image), tmp_path)
    assert len(drawn) == 2
    assert titles == [["factual", "do(sex = male)"], ["factual", "do(sex = female)", "do(age = 40 years)"]]
