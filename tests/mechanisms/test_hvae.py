"""The image's mechanism: the contract, the exogenous prior, the number of network passes, the cost of a query."""

import dataclasses

import pytest
import torch
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from causalcxr.graph import graph_from_dict
from causalcxr.mechanisms.hvae import HVAE, HVAEConfig, HVAENoise
from causalcxr.mechanisms.hvae_network import Decoder, Encoder, Posterior, Prior
from causalcxr.randomness import Draws
from causalcxr.support.errors import ConfigError, DataError

TINY = HVAEConfig(
    stem=2,
    resolutions=[8, 4, 1],
    widths=[8, 16, 16],
    encoder_blocks=[1, 1, 0],
    decoder_blocks=[1, 2, 1],
    latents=[2, 3, 4],
    embedding=32,
)
GRAPH = graph_from_dict(
    {
        "variables": {
            "sex": {"kind": "binary", "labels": ["female", "male"]},
            "age": {"kind": "continuous", "range": [18, 100]},
            "image": {"kind": "image", "parents": ["sex", "age"]},
        }
    }
)


def make(config=TINY, channels=1, seed=0):
    torch.manual_seed(seed)
    image = dataclasses.replace(GRAPH["image"], channels=channels)
    return HVAE(image, GRAPH.parents("image"), config, config.resolutions[0] * config.stem)


def make_parents(n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    sex = torch.randint(0, 2, (n,), generator=generator)
    return {"sex": sex, "age": 20 + 60 * torch.rand(n, generator=generator)}


def make_image(n, channels=1, size=16, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("baseline", [True, False])
def test_null_intervention_gives_the_image_back(channels, baseline):
    config = dataclasses.replace(TINY, baseline=baseline)
    hvae, image, parents = make(config, channels), make_image(5, channels), make_parents(5)
    noise = hvae.abduct(image, parents, Draws(3))
    again = hvae(noise, parents)
    assert again.shape == (5, channels, 16, 16)
    # One decoder pass in each direction, summed in another order at most: float32 rounding of scale * noise.
    torch.testing.assert_close(again, image / 255, rtol=0, atol=2e-6)


def test_float_images_equal_their_uint8_levels():
    hvae, image, parents = make(), make_image(4), make_parents(4)
    of_levels, of_floats = (hvae.log_prob(x, parents, Draws(0)) for x in (image, image.float() / 255))
    torch.testing.assert_close(of_levels, of_floats, rtol=0, atol=0)


def test_latents_are_drawn_without_parents_and_parents_change_the_image():
    hvae = make()
    noise = hvae.sample_noise(6, Draws(4))
    first, second = make_parents(6, seed=5), make_parents(6, seed=6)
    kept = [z.clone() for z in noise.latents]
    assert (hvae(noise, first) != hvae(noise, second)).any()
    assert all(torch.equal(a, b) for a, b in zip(kept, noise.latents, strict=True))


def test_no_path_leads_from_the_parents_to_the_prior():
    hvae, image = make(), make_image(3)
    parents = make_parents(3)
    names = {id(p) for p in hvae.prior.parameters()}
    noise = hvae.sample_noise(3, Draws(0))
    gradients = torch.autograd.grad(
        sum(z.sum() for z in noise.latents), list(hvae.parameters()), allow_unused=True
    )
    touched = {id(p) for p, g in zip(hvae.parameters(), gradients, strict=True) if g is not None}
    assert touched <= names  # the prior's law depends on the prior's own parameters alone
    with pytest.raises(KeyError):  # while the posterior does ask for the parents
        hvae.elbo(image, {"sex": parents["sex"]})


def test_elbo_is_log_prob_and_its_noise_is_the_abducted_one():
    hvae, image, parents = make(), make_image(4), make_parents(4)
    elbo = hvae.elbo(image, parents, Draws(7))
    torch.testing.assert_close(hvae.log_prob(image, parents, Draws(7)), -(elbo.nll + elbo.kl), rtol=0, atol=0)
    noise, again = elbo.noise, hvae.abduct(image, parents, Draws(7))
    assert all(torch.equal(a, b) for a, b in zip(noise.latents, again.latents, strict=True))
    assert torch.equal(noise.pixel, again.pixel)


def test_beta_weighs_the_kl_term():
    config = dataclasses.replace(TINY, beta=0.25)
    hvae, image, parents = make(config), make_image(4), make_parents(4)
    elbo = hvae.elbo(image, parents, Draws(0))
    torch.testing.assert_close(elbo.nats(), elbo.nll + 0.25 * elbo.kl + elbo.auxiliary)


@pytest.mark.parametrize("baseline", [True, False])
def test_the_auxiliary_loss_is_half_the_squared_distance_from_the_baseline(baseline):
    hvae, image, parents = make(dataclasses.replace(TINY, baseline=baseline)), make_image(4), make_parents(4)
    elbo, expected = hvae.elbo(image, parents, Draws(0)), torch.zeros(4)
    if baseline:
        predicted = hvae.baseline(hvae.embed(hvae.parent_encoder(parents)))
        expected = ((image / 255 - predicted) / 0.1).square().flatten(1).sum(dim=1) / 2
    torch.testing.assert_close(elbo.auxiliary, expected, rtol=1e-5, atol=0)  # float32 sums of 256


def test_the_encoder_sees_only_the_residual_from_the_baseline():
    # An image that equals its baseline carries nothing beyond its parents, whoever they are.
    hvae, seen = make(), []
    hvae.encoder.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    parents = make_parents(4)
    baseline = hvae._condition(parents).baseline.detach()
    hvae.elbo(baseline, parents, Draws(0))
    assert not seen[0].any()
    assert not seen[0].requires_grad  # the baseline is a regression; the latents do not bend it


def count_calls(hvae):
    """Calls of each network part, by part; parts that work layer by layer count their layers."""
    calls = {}

    def count(module, _inputs, _output):
        calls[type(module)] = calls.get(type(module), 0) + 1

    for part in (hvae.encoder, hvae.posterior, hvae.prior, hvae.decoder):
        part.register_forward_hook(count)
    return calls


def test_one_encoder_and_one_decoder_pass_for_everything_and_the_decoder_alone_for_a_counterfactual():
    hvae, image, parents = make(), make_image(4), make_parents(4)
    calls = count_calls(hvae)
    noise = hvae.elbo(image, parents).noise
    assert calls == {Encoder: 1, Decoder: 1, Posterior: 4, Prior: 4}  # four layers of latents
    calls.clear()
    hvae(noise.repeat(8), {name: value.repeat(8) for name, value in parents.items()})
    assert calls == {Decoder: 1}
    calls.clear()
    hvae.sample_noise(4)
    assert calls == {Prior: 4}


@pytest.mark.parametrize("latents", [[2, 3, 4], [0, 3, 4], [2, 0, 4], [2, 3, 0]])
@pytest.mark.parametrize("baseline", [True, False])
def test_every_parameter_gets_a_gradient(latents, baseline):
    config = dataclasses.replace(TINY, latents=latents, baseline=baseline)
    hvae, image, parents = make(config), make_image(16), make_parents(16)
    hvae.elbo(image, parents, Draws(0)).nats().mean().backward()
    silent = [name for name, p in hvae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_counterfactuals_carry_gradients_to_encoder_and_decoder():
    hvae, image = make(), make_image(4)
    noise = hvae.abduct(image, make_parents(4, seed=5), Draws(0)).with_pixel_noise("off", Draws(0))
    hvae(noise, make_parents(4, seed=6)).sum().backward()
    assert hvae.encoder.stem.weight.grad.abs().sum() > 0
    assert hvae.decoder.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("baseline", [True, False])
def test_a_few_steps_learn_the_parents_effect_on_the_image(baseline):
    # sex paints the left half, age the right one; noise is small. What the model makes of do() must follow.
    hvae = make(dataclasses.replace(TINY, baseline=baseline), seed=3)
    parents = make_parents(256, seed=8)
    left = parents["sex"].float()[:, None, None, None].expand(-1, 1, 16, 8) * 0.8 + 0.1
    right = ((parents["age"] - 20) / 60)[:, None, None, None].expand(-1, 1, 16, 8) * 0.8 + 0.1
    clean = torch.cat([left, right], dim=3)
    image = (clean + 0.02 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    hvae.calibrate(parents)
    optimizer = torch.optim.AdamW(hvae.parameters(), lr=4e-3)
    draws = Draws(0)
    first = hvae.elbo(image, parents, draws).nats().mean().item()
    for step in range(100):
        rows = torch.arange(64) + 64 * (step % 4)
        batch = {name: value[rows] for name, value in parents.items()}
        loss = hvae.elbo(image[rows], batch, draws).nats().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(hvae.parameters(), 200.0)
        optimizer.step()
    assert loss.item() < first - 200  # nats; 256 pixels lose about 4 nats each from scale .3 to .02 at best
    with torch.no_grad():
        noise = hvae.abduct(image[:64], {k: v[:64] for k, v in parents.items()}, Draws(1))
        male = {"sex": torch.ones(64, dtype=torch.int64), "age": parents["age"][:64]}
        counterfactual = hvae(noise, male)
    halves = counterfactual[..., :8].mean(), (counterfactual[..., 8:] - clean[:64, ..., 8:]).abs().mean()
    # The exact answer is .9 and 0. A model that does nothing gives about .5 on the left.
    assert halves[0] > 0.75
    assert halves[1] < 0.1


def test_noise_repeats_selects_and_redraws():
    noise = make().sample_noise(3, Draws(0))
    assert isinstance(noise, HVAENoise)
    assert len(noise) == 3
    tiled = noise.repeat(2)
    assert len(tiled) == 6
    assert torch.equal(tiled.latents[0][4], noise.latents[0][1])
    rows = tiled.select(torch.tensor([4, 0]))
    assert torch.equal(rows.pixel, noise.pixel[[1, 0]])
    assert not noise.with_pixel_noise("off", Draws(0)).pixel.any()
    fresh = noise.with_pixel_noise("redrawn", Draws(9))
    assert fresh.latents is noise.latents
    assert not torch.equal(fresh.pixel, noise.pixel)
    assert torch.equal(fresh.pixel, noise.with_pixel_noise("redrawn", Draws(9)).pixel)


def test_draws_decide_everything():
    hvae, image, parents = make(), make_image(4), make_parents(4)
    one, two, other = (hvae.abduct(image, parents, Draws(seed)) for seed in (11, 11, 12))
    assert all(torch.equal(a, b) for a, b in zip(one.latents, two.latents, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one.latents, other.latents, strict=True))
    torch.manual_seed(12)
    of_global = hvae.sample_noise(4)
    assert torch.equal(of_global.pixel, hvae.sample_noise(4, Draws(12)).pixel)


def test_feature_maps_stay_channels_last():
    hvae = make()
    formats = {}
    for name, module in hvae.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda _m, _i, out, name=name: formats.__setitem__(
                    name, out.is_contiguous(memory_format=torch.channels_last)
                )
            )
    hvae.elbo(make_image(4), make_parents(4))
    assert formats
    assert [name for name, kept in formats.items() if not kept] == []


def test_float64_and_checkpointing_give_the_same_bound():
    image, parents = make_image(4), make_parents(4)
    plain = make().double()
    recomputed = make(dataclasses.replace(TINY, checkpoint=True)).double()
    results = []
    for hvae in (plain, recomputed):
        loss = hvae.elbo(image, parents, Draws(5)).nats().sum()
        loss.backward()
        results.append((loss.detach(), torch.cat([p.grad.flatten() for p in hvae.parameters()])))
    assert results[0][0].dtype == torch.float64
    torch.testing.assert_close(results[0], results[1])


def test_autocast_keeps_the_likelihood_and_the_kl_in_float32():
    hvae, image, parents = make(), make_image(4), make_parents(4)
    with torch.autocast("cpu", torch.bfloat16):
        elbo = hvae.elbo(image, parents, Draws(0))
    assert {elbo.nll.dtype, elbo.kl.dtype, elbo.loc.dtype, elbo.scale.dtype} == {torch.float32}
    full = hvae.elbo(image, parents, Draws(0))
    torch.testing.assert_close(elbo.nll, full.nll, rtol=0.02, atol=0)  # bfloat16 keeps 8 bits: 2^-7 per layer


def test_saved_weights_load(tmp_path):
    from safetensors.torch import load_file, save_file

    hvae, image, parents = make(seed=0), make_image(4), make_parents(4)
    hvae.calibrate(parents)
    state = {name: value.contiguous() for name, value in hvae.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    other = make(seed=1)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    torch.testing.assert_close(
        hvae.log_prob(image, parents, Draws(0)), other.log_prob(image, parents, Draws(0)), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"widths": [8, 16]}, "hvae.widths: 2 entries, expected 3"),
        ({"resolutions": [8, 3, 1]}, "8 is no proper multiple of the next entry, 3"),
        ({"latents": [0, 0, 0]}, "hvae.latents"),
        ({"decoder_blocks": [1, 0, 1]}, "hvae.decoder_blocks' is .*at least one entry"),
        ({"scale_floor": 0.0}, "hvae.scale_floor"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(change, complaint):
    with pytest.raises(ConfigError, match=complaint):
        make(dataclasses.replace(TINY, **change))


def test_a_network_for_images_of_another_size_is_refused():
    with pytest.raises(
        ConfigError, match=r"resolutions: starts with 8, expected data\.size / stem = 16; the presets"
    ):
        HVAE(GRAPH["image"], GRAPH.parents("image"), TINY, 32)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(DataError, match="images are 1x8x8, the model takes 1x16x16"):
        make().abduct(make_image(2, size=8), make_parents(2))


def test_config_passes_through_omegaconf():
    merged = OmegaConf.merge(OmegaConf.structured(HVAEConfig), {"stem": 4, "widths": [8, 8]})
    config = OmegaConf.to_object(merged)
    assert isinstance(config, HVAEConfig)
    assert config.widths == [8, 8]


def count_operations(function):
    """Floating-point operations of the convolutions and matrix products that it runs."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def test_eight_interventions_from_one_abduction_take_less_than_a_third_of_the_work():
    # Against eight times the published way: encoder, posterior and decoder, then two passes of the decoder alone.
    # With the default sizes an abduction costs 3.8 decoder passes: 8 * (3.8 + 2) against 3.8 + 8, a factor of 3.9.
    hvae, image, parents = make(HVAEConfig()), make_image(2, size=64), make_parents(2)
    noise, tiled = hvae.abduct(image, parents), {name: value.repeat(8) for name, value in parents.items()}
    abduction = count_operations(lambda: hvae.abduct(image, parents))
    alone = count_operations(lambda: hvae(noise, parents))
    together = count_operations(lambda: hvae(noise.repeat(8), tiled))
    assert together == 8 * alone > 0
    assert 8 * (abduction + 2 * alone) > 3.5 * (abduction + together)


def test_many_rows_are_decoded_in_parts_and_are_what_they_are_in_one(monkeypatch):
    hvae, image, parents = make(), make_image(7), make_parents(7)
    with torch.no_grad():
        noise, calls = hvae.abduct(image, parents, Draws(0)), []
        whole = hvae(noise, parents)
        hvae.decoder.register_forward_hook(lambda *_: calls.append(1))
        monkeypatch.setattr("causalcxr.mechanisms.hvae._DECODED_PIXELS", 3 * 256)
        parts = hvae(noise, parents | {"image": image, "other": torch.zeros(1)})
    assert len(calls) == 3
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
