"""Fine-tuning: targets follow the graph, what is frozen stays frozen, nothing is computed twice."""

import math

import pytest
import torch
from torch import Tensor

from causalcxr.graph import graph_from_dict
from causalcxr.interventions import draw_one_each
from causalcxr.mechanisms.hvae import HVAE
from causalcxr.predictors.networks import PredictorConfig
from causalcxr.predictors.outputs import OutputBatch, OutputModel, output_nodes, output_ranges, output_values
from causalcxr.predictors.predictor import NetworkPredictor
from causalcxr.randomness import Draws
from causalcxr.support.errors import ConfigError
from causalcxr.training.config import TARGETS, FinetuneConfig
from causalcxr.training.finetune import FinetuneObjective
from causalcxr.training.targets import CounterfactualTargets, HardTargets, Pair, SoftTargets
from tests.models import chest_batch, tiny_scm

EDGES = {
    "chain": {"a": [], "b": ["a"], "c": ["b"]},  #     a -> b -> c
    "fork": {"a": [], "b": ["a"], "c": ["a"]},  #      b <- a -> c
    "collider": {"a": [], "b": [], "c": ["a", "b"]},  # a -> c <- b
}
BELOW = {
    "chain": {"a": "bc", "b": "c", "c": ""},
    "fork": {"a": "bc", "b": "", "c": ""},
    "collider": {"a": "c", "b": "c", "c": ""},
}


def three(shape):
    """Three binary attributes in a chain, a fork or a collider, all of them causes of the image."""
    variables = {
        name: {"kind": "binary", "labels": ["no", "yes"], "parents": parents}
        for name, parents in EDGES[shape].items()
    }
    variables["image"] = {"kind": "image", "parents": ["a", "b", "c"]}
    return graph_from_dict({"name": shape, "variables": variables})


def batch_of(graph, n=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    batch: dict[str, Tensor] = {a: torch.randint(2, (n,), generator=generator) for a in graph.attributes}
    return batch | {"image": torch.randint(256, (n, 1, 16, 16), generator=generator).to(torch.uint8)}


def predictor_of(graph, seed=0):
    torch.manual_seed(seed)
    variables = [graph[name] for name in graph.attributes]
    return NetworkPredictor(variables, PredictorConfig(widths=[8, 8])).eval()


def outputs_of(variables, graph, rows):
    model = OutputModel(variables, graph.parents("image"), output_ranges(rows.outputs))
    model.calibrate(rows)
    return model


def objective_of(targets, graph="chest", batch=None, bound=100.0, **config):
    scm = tiny_scm(graph)
    batch = batch or chest_batch(16)
    predictor = predictor_of(scm.graph)
    outputs = None
    if targets == "counterfactual":
        values = output_values(predictor.variables, predictor(batch["image"])).detach()
        rows = OutputBatch(values, batch)
        outputs = outputs_of(predictor.variables, scm.graph, rows)
    marginals = {name: batch[name] for name in scm.graph.attributes}
    return FinetuneObjective(scm, predictor, FinetuneConfig(targets=targets, **config), marginals, bound, outputs)


@pytest.mark.parametrize("shape", EDGES)
def test_each_row_follows_its_own_intervention_through_the_graph(shape):
    """Non-descendants keep their value bit for bit; descendants are what the model itself would have answered."""
    graph = three(shape)
    scm, batch = tiny_scm(graph), batch_of(graph, 60)
    names = list(graph.attributes)
    chosen = torch.arange(60) % 3
    intervened = {name: chosen == i for i, name in enumerate(names)}
    values = {name: 1 - batch[name] for name in names}
    found = scm.intervene(batch, values, intervened, Draws(0))
    for i, name in enumerate(names):
        rows = chosen == i
        for other in names:
            after = found.counterfactual[other][rows]
            if other == name:
                assert torch.equal(after, values[name][rows])
            elif other not in BELOW[shape][name]:
                assert torch.equal(after, batch[other][rows])
            reached = found.reached.get(other, torch.zeros(60, dtype=torch.bool))[rows]
            assert bool(reached.all()) == bool(reached.any()) == (other in BELOW[shape][name])
    seeds = [scm.counterfactual(scm.abduct(batch, seed=s), {"a": values["a"]}) for s in range(400)]
    moved = [scm.intervene(batch, {"a": values["a"]}, _all("a", 60), Draws(s)) for s in range(400)]
    for other in BELOW[shape]["a"]:  # the same law; 5 standard errors of a mean of 400 draws of a binary: 0.125
        share = torch.stack([s[other].float() for s in seeds]).mean(dim=0)
        ours = torch.stack([m.counterfactual[other].float() for m in moved]).mean(dim=0)
        assert (share - ours).abs().max() < 0.18  # difference of two such means


def pair_of(image, attributes):
    """Of images that an intervention has left alone."""
    return Pair(image, image, attributes)


def _all(name, n):
    return {name: torch.ones(n, dtype=torch.bool)}


@pytest.mark.parametrize("shape", EDGES)
@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_targets_follow_the_graph(shape, mode):
    graph = three(shape)
    batch = batch_of(graph)
    scm, predictor = tiny_scm(graph), predictor_of(graph)
    kind = {"hard": HardTargets, "soft": SoftTargets}[mode](predictor, weight=3.0)
    for name in graph.attributes:
        found = scm.intervene(batch, {name: 1 - batch[name]}, _all(name, 16), Draws(1))
        targets = kind.targets(pair_of(batch["image"], found))
        seen = predictor(batch["image"])
        for other in graph.attributes:
            fixed = other == name or other in BELOW[shape][name] or mode == "hard"
            hard = torch.nn.functional.one_hot(found.counterfactual[other], 2).float()
            expected = hard if fixed else seen[other].softmax(dim=1)
            assert (targets[other] - expected).abs().max() < 1e-6


def test_soft_target_of_a_number_is_the_prediction_on_the_factual_image():
    scm, batch = tiny_scm(), chest_batch(16)
    soft = SoftTargets(predictor_of(scm.graph), weight=3.0)
    on_sex = scm.intervene(batch, {"sex": 1 - batch["sex"]}, _all("sex", 16), Draws(0))
    assert torch.equal(soft.targets(pair_of(batch["image"], on_sex))["age"], soft.predictor(batch["image"])["age"])
    on_age = scm.intervene(batch, {"age": batch["age"].flip(0)}, _all("age", 16), Draws(0))
    assert torch.equal(soft.targets(pair_of(batch["image"], on_age))["age"], batch["age"].flip(0))


def test_the_distance_to_carried_outputs_is_of_log_odds_and_numbers():
    graph, batch = tiny_scm().graph, chest_batch(64)
    predictor = predictor_of(graph)
    prediction = {name: value.detach() for name, value in predictor(batch["image"]).items()}
    nodes, values = output_nodes(predictor.variables), output_values(predictor.variables, prediction)
    assert values.shape == (64, 5) and len(nodes) == 5  # sex, race twice, age, finding
    odds = prediction["race"].log_softmax(dim=1)
    black = values[:, nodes.index(f"output of race: {graph['race'].labels[2]}")]
    assert (black - (odds[:, 2] - odds[:, 0])).abs().max() < 1e-5
    model = outputs_of(predictor.variables, graph, OutputBatch(values, batch))
    i, targets = nodes.index("output of age"), values.clone()
    targets[:, i] += 2 * model.spread[i]
    found = model.distances(prediction, targets)
    assert (found["age"] - 2).abs().max() < 1e-3  # two spreads off: half of four
    assert max(found[name].max() for name in ("sex", "race", "finding")) == 0


def test_carried_outputs_are_exact_where_the_answer_is_known():
    """Outputs `2 sex + (1 + sex) w`: the carried one keeps w. Flows fitted on 4,000 rows: within
    0.25 on average, an eighth of what doing nothing is off by."""
    graph = tiny_scm().graph
    generator = torch.Generator().manual_seed(0)
    batch = {name: value for name, value in chest_batch(4000).items() if name != "image"}
    w = torch.randn(4000, generator=generator)

    def outputs(sex):
        return 2.0 * sex + (1.0 + sex) * w

    variables = [graph["finding"]]
    rows = OutputBatch(outputs(batch["sex"])[:, None], batch)
    model = outputs_of(variables, graph, rows)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        model(rows)[model.nodes[0]].mean().backward()
        optimizer.step()
    other = {**batch, "sex": 1 - batch["sex"]}
    factual = torch.stack([torch.zeros(4000), outputs(batch["sex"])], dim=1)
    with torch.no_grad():
        found = model.carry({"finding": factual}, batch, other)[:, 0]
        same = model.carry({"finding": factual}, batch, batch)[:, 0]
    assert model.spread[0].item() == pytest.approx(2.5**0.5, rel=0.05)  # of (1 + sex) w, sexes even
    nothing = (factual[:, 1] - outputs(other["sex"])).abs().mean()
    assert (found - outputs(other["sex"])).abs().mean() < 0.25 < nothing / 7
    assert (same - factual[:, 1]).abs().max() < 1e-3  # nothing changed: the factual output itself


@pytest.mark.parametrize("mode", TARGETS)
def test_only_the_image_mechanism_trains(mode):
    objective = objective_of(mode, bound=0.0)
    frozen = objective._frozen
    losses = objective.train()(chest_batch(8), Draws(0))
    sum(loss.mean() for loss in losses.values()).backward()
    trained = {name for name, p in objective.named_parameters()}
    assert all(name.startswith("mechanism.") for name in trained)
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.parameters())
    targets = frozen.targets
    others = [] if targets is None else [*targets.predictor.parameters()]
    others += targets.outputs.parameters() if isinstance(targets, CounterfactualTargets) else []
    others += [p for name in frozen.scm.graph.attributes for p in frozen.scm.mechanism(name).parameters()]
    assert all(not p.requires_grad and p.grad is None for p in others)


def test_a_step_runs_encoder_once_decoder_twice_and_trunk_once_a_set_of_images():
    objective, calls = objective_of("soft"), {"encoder": 0, "decoder": 0, "trunk": 0}
    parts = {"encoder": objective.mechanism.encoder, "decoder": objective.mechanism.decoder}
    parts["trunk"] = objective._frozen.targets.predictor.trunk
    for name, module in parts.items():
        module.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    objective.train()(chest_batch(8), Draws(0))
    assert calls == {"encoder": 1, "decoder": 2, "trunk": 2}  # the factual and the counterfactual images


def gradient(loss, objective):
    """Of a loss in all the parameters that fine-tuning trains, as one vector."""
    parameters = list(objective.mechanism.parameters())
    gradients = torch.autograd.grad(loss.mean(), parameters, allow_unused=True)
    return torch.cat([g.flatten() for g in gradients if g is not None])


def test_a_model_within_its_bound_is_never_pushed_up():
    """Above the bound the constraint's gradient pulls E down; below it, with multiplier and floor 0, zero."""
    for bound, pulled in ((0.0, True), (1e6, False)):
        objective = objective_of("hard", bound=bound, multiplier_floor=0).train()
        constraint = objective(chest_batch(8), Draws(0))["constraint"]
        assert (float(gradient(constraint, objective).abs().sum()) > 0) == pulled
        assert (objective.constraint.multiplier > 0) == pulled
        assert math.copysign(1, objective.state()["slack"]) == (-1 if pulled else 1)


def test_the_floor_holds_the_likelihood_far_within_its_bound():
    """There the constraint's gradient is that of E, in bits per dimension, times the floor."""
    objective = objective_of("hard", bound=1e6, multiplier_floor=7.0).train()
    batch = chest_batch(8)
    found = gradient(objective(batch, Draws(0))["constraint"], objective)
    elbo = objective.mechanism.elbo(batch["image"], batch, Draws(0))
    bits = elbo.nats() / (math.log(2) * batch["image"][0].numel())
    expected = 7 * gradient(bits, objective)
    assert objective.constraint.multiplier.item() == 0
    assert expected.norm() > 0
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_what_an_intervention_reaches_weighs_more_and_nothing_else_does():
    """do(age) sets age, which the finding follows from; sex and race it should leave alone."""
    plain, heavy = (
        objective_of("counterfactual", intervene=["age"], intervened_weight=weight) for weight in (1.0, 5.0)
    )
    batch = chest_batch(8)
    with torch.no_grad():
        light, weighed = plain.train()(batch, Draws(0)), heavy.train()(batch, Draws(0))
    for name, factor in {"age": 5, "finding": 5, "sex": 1, "race": 1}.items():
        assert float(light[name].sum()) > 0
        torch.testing.assert_close(weighed[name], factor * light[name])


def test_the_multiplier_falls_again_but_never_below_zero():
    objective = objective_of("hard", bound=0.0).train()
    objective(chest_batch(8), Draws(0))
    high = objective.constraint.multiplier.item()
    objective.constraint.limit = 1e6
    objective(chest_batch(8), Draws(0))
    assert high > 0
    assert objective.constraint.multiplier.item() == 0


def test_validation_leaves_the_multiplier_alone():
    objective = objective_of("hard", bound=0.0).eval()
    objective(chest_batch(8), Draws(0))
    assert objective.constraint.multiplier.item() == 0


def test_intervened_only_looks_at_the_intervened_attribute_alone():
    objective, batch = objective_of("intervened_only", intervene=["sex"]), chest_batch(8)
    losses = objective(batch, Draws(0))
    assert float(losses["sex"].detach().sum()) > 0
    assert all(float(losses[name].detach().abs().sum()) == 0 for name in ("race", "age", "finding"))


def test_two_processes_draw_the_interventions_of_one():
    scm, batch = tiny_scm(), chest_batch(8)
    marginals = {name: chest_batch(50, seed=3)[name] for name in scm.graph.attributes}
    names = scm.graph.causes_of_image

    def drawn(rows, draws):
        do, chosen = draw_one_each(names, marginals, len(rows["age"]), draws)
        return scm.intervene(rows, do, chosen, draws)

    whole, halves = drawn(batch, Draws(5)), []
    for rank in range(2):
        rows = slice(4 * rank, 4 * rank + 4)
        half = {name: value[rows] for name, value in batch.items()}
        halves.append(drawn(half, Draws(5, rank=rank, world=2)))
    for name in names:
        together = torch.cat([half.counterfactual[name] for half in halves])
        assert torch.equal(together, whole.counterfactual[name])


def test_every_attribute_that_reaches_the_image_is_intervened_on():
    graph = graph_from_dict(
        {
            "name": "g",
            "variables": {
                "a": {"kind": "binary", "labels": ["0", "1"]},
                "b": {"kind": "binary", "labels": ["0", "1"], "parents": ["a"]},
                "c": {"kind": "binary", "labels": ["0", "1"], "parents": ["b"]},
                "image": {"kind": "image", "parents": ["b"]},
            },
        }
    )
    assert graph.causes_of_image == ("a", "b")


def test_an_unknown_attribute_to_intervene_on_is_named(tiny_run, tmp_path):
    from causalcxr.config import load_config
    from causalcxr.training.pipeline import train

    with pytest.raises(ConfigError, match=r"finetune\.intervene has 'sexx'.*did you mean 'sex'"):
        train(load_config([f"base={tiny_run}", f"run={tmp_path}/run", "finetune.intervene=[sexx]"]))


def test_none_goes_on_with_the_image_stage():
    objective, batch = objective_of("none"), chest_batch(4)
    mechanism = objective.mechanism
    assert isinstance(mechanism, HVAE)
    expected = mechanism.elbo(batch["image"], batch, Draws(7)).nats() / (math.log(2) * 256)
    torch.testing.assert_close(objective(batch, Draws(7))["image"], expected)
    assert objective.names == ("image",)
