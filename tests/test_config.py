"""Configuration: presets, overrides, and one clear line for every mistake."""

import pytest

from causalcxr.config import load_config, override_config, read_config, shipped_presets, to_yaml
from causalcxr.graph import load_graph
from causalcxr.randomness import Draws
from causalcxr.scm import StructuralCausalModel
from causalcxr.support.errors import ConfigError


def test_defaults_then_preset_then_command_line(tmp_path):
    preset = tmp_path / "mine.yaml"
    preset.write_text("train: {seed: 5, image: {steps: 7}}\nlog: {project: mine}\n")
    config = load_config([f"preset={preset}", "train.seed=6"])
    assert (config.train.seed, config.train.image.steps, config.log.project) == (6, 7, "mine")
    assert config.train.attributes.steps == load_config([]).train.attributes.steps
    assert config.run == "runs/mine"


def test_a_preset_can_include_another(tmp_path):
    preset = tmp_path / "mine.yaml"
    preset.write_text("include: [quickstart]\ndata: {train: 12}\n")
    config, base = load_config([f"preset={preset}"]), load_config(["preset=quickstart"])
    assert config.data.train == 12
    assert (config.graph, config.train.image) == (base.graph, base.train.image)


@pytest.mark.parametrize("preset", shipped_presets())
def test_shipped_presets_are_valid(preset):
    load_config([f"preset={preset}"])


def test_written_and_read_it_is_the_same(tmp_path):
    config = load_config(["preset=quickstart", "data.labels.sex={F: female, M: male}"])
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert read_config(tmp_path / "c.yaml") == config


def test_override_leaves_the_original_alone():
    config = load_config([])
    other = override_config(config, ["evaluate.rows=3"])
    assert other.evaluate.rows == 3 and config.evaluate.rows != 3


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("train.sed=1", "unknown key 'train.sed' on the command line; did you mean 'train.seed'?"),
        ("trian.seed=1", "unknown key 'trian' on the command line; did you mean 'train'?"),
        ("model.hvae.widht=1", "unknown key 'model.hvae.widht'"),
        (
            "train.seed=one",
            "'train.seed' on the command line is 'one'; expected a whole number such as train.seed=0",
        ),
        ("train.image.learning_rate=fast", "expected a number such as train.image.learning_rate="),
        ("train.stages=3", "'train.stages' on the command line is '3'; expected a list"),
        ("train=3", "'train' on the command line is '3'; expected keys such as train.stages=..."),
        ("train.image.steps=0", "'train.image.steps' is 0; expected a number of at least 1"),
        ("train.image.ema_decay=2", "'train.image.ema_decay' is 2.0; expected a number in [0, 1)"),
        ("train.image.beta1=1", "'train.image.beta1' is 1.0; expected a number in [0, 1)"),
        ("train.image.learning_rate=nan", "'train.image.learning_rate' is nan; expected a number above 0"),
        ("train.image.learning_rate=inf", "'train.image.learning_rate' is inf; expected a number above 0"),
        ("model.hvae.beta=-1", "'model.hvae.beta' is -1.0; expected a number of at least 0"),
        ("model.hvae.stem=0", "'model.hvae.stem' is 0; expected a number of at least 1"),
        (
            "model.hvae.widths=[]",
            "'model.hvae.widths' is []; expected a list of at least one entry, each a number",
        ),
        ("model.flow.t_end=1", "'model.flow.t_end' is 1.0; expected a number in [0, 1)"),
        ("model.spline.bins=1", "'model.spline.bins' is 1; expected a number of at least 2"),
        ("evaluate.draws=0", "'evaluate.draws' is 0; expected a number of at least 1"),
        ("data.test_fraction=1", "'data.test_fraction' is 1.0; expected a number in (0, 1)"),
        ("train.device=gpu", "'train.device' is 'gpu'; expected one of: auto, cpu, cuda"),
        ("train.stages=[atributes]", "'train.stages' has 'atributes'; did you mean 'attributes'?"),
        ("log.wandb=onlin", "'log.wandb' is 'onlin'; expected one of: off, offline, online"),
        ("data.source=foldr", "'data.source' is 'foldr'; expected one of: simulator, folder, morphomnist"),
        (
            "preset=quikstart",
            "no preset 'quikstart': not a file and not a shipped preset; did you mean 'quickstart'?",
        ),
        ("data.columns=[1", "the value is not valid YAML"),
        ("seed", "argument 'seed': expected key=value, for example train.seed=1"),
    ],
)
def test_mistakes_are_one_clear_line(argument, expected):
    with pytest.raises(ConfigError) as caught:
        load_config([argument])
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_broken_preset_files_are_refused(tmp_path):
    path = tmp_path / "broken.yaml"
    for text in ("train: [", "- 1\n- 2\n"):
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_config([f"preset={path}"])
        assert "broken.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("preset", "millions", "finest_latent"),
    [("hvae32", (1, 2), 16), ("hvae64", (1, 2), 16), ("hvae128", (5, 8), 64), ("hvae192", (7, 9.5), 96)],
)
def test_network_presets_build_and_have_the_stated_size(preset, millions, finest_latent):
    config = load_config([f"preset={preset}"])
    scm = StructuralCausalModel(load_graph("chest"), config.model, config.data.size)
    mechanism = scm.mechanism("image")
    assert millions[0] < sum(p.numel() for p in mechanism.parameters()) / 1e6 < millions[1]
    noise = mechanism.sample_noise(1, Draws(0))
    assert max(latent.shape[-1] for latent in noise.latents) == finest_latent
    assert mechanism.event_shape == (1, config.data.size, config.data.size)


def test_a_preset_that_includes_itself_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("include: [b.yaml]\n")
    (tmp_path / "b.yaml").write_text("include: [a.yaml]\n")
    with pytest.raises(ConfigError, match=r"preset 'a\.yaml' includes itself \(a\.yaml -> b\.yaml -> a\.yaml\)"):
        load_config(["preset=a.yaml"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "data.columns=[a]",
            "'data.columns' on the command line is '.*'; expected keys such as data.columns.name=",
        ),
        ("train.stages={a: b}", "'train.stages' on the command line is '{'a': 'b'}'; expected a list such as"),
        ("model.hvae.widths=[[1]]", "'model.hvae.widths' is .*; expected a list"),
        ("prest=quickstart", "unknown key 'prest' on the command line; did you mean 'preset'"),
    ],
)
def test_a_value_of_another_kind_is_one_line(setting, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config([setting])
    assert "\n" not in str(caught.value)
