"""Experiments: each is one command that ends with its picture; here with a small budget."""

import re
from pathlib import Path

import pytest
from helpers.runs import DATA, ROOT, command, composed
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from vae_exp.config import CONF, ConfigError, options
from vae_exp.ranges import check_ranges
from vae_exp.runs.build import check_values
from vae_exp.runs.targets import check_targets
from vae_exp.training.job import train
from vae_exp.training.pictures import check_draw

FILES = {path.stem: path for path in sorted((Path(CONF) / "experiment").glob("*.yaml"))}
SWEEPS = [name for name, path in FILES.items() if "\nsweep:" in path.read_text()]
# A few steps, one batch of each split, one thread.
SMALL = [
    f"data.root={DATA}", "logger=csv", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "report=false",
    "trainer.log_every_n_steps=1", "trainer.limit_train_batches=4", "trainer.limit_test_batches=1",
    "trainer.max_steps=8",
]  # fmt: skip
# What takes longest, and what else goes with so few steps.
LESS = {
    "few_labels": [],
    "mean_field": [
        "callbacks.scores.metrics.amortisation={num_images: 100, steps: 1, num_samples: 4}",
        "trainer.limit_val_batches=1",
    ],
    "anomalies": ["draw.anomalies.num_images=20"],
    "inpainting": ["+draw.inpaint.num_images=4", "+draw.inpaint.num_steps=2"],
    "manifold_mnist": ["+draw.manifold.num_points=3"],
    **{
        f"aevb_figure{n}": [
            "trainer.val_check_interval=4",
            "trainer.limit_val_batches=1",
        ]
        for n in ("2", "2_frey", "4", "5")
    },
    "aevb_figure3": [
        "trainer.val_check_interval=4",
        "trainer.limit_val_batches=1",
        "callbacks.marginal={every: 4, num_images: 8, num_samples: 4}",
    ],
    "memorisation": ["trainer.val_check_interval=4", "trainer.limit_val_batches=1"],
    "gradient_variance": ["callbacks.gradients.repeats=2", "trainer.limit_val_batches=1"],
}


def small(name):
    less = LESS.get(name, ["trainer.limit_val_batches=1"])
    return [f"experiment={name}", *SMALL, *less]


@pytest.mark.parametrize("name", FILES)
def test_it_says_what_it_is_and_is_sound(name):
    head = FILES[name].read_text().split("defaults:")[0]
    cfg = composed(f"experiment={name}")
    check_values(cfg)
    check_ranges(cfg, ())
    assert set(cfg.draw) <= set(options("what"))
    assert "on two cores" in head.replace("\n# ", " ")
    if name != "quickstart":
        assert HydraConfig.get().runtime.choices.experiment == cfg.name == name
        page = ROOT / re.search(r"docs/course/\w+\.md", head)[0]
        assert f"python -m vae_exp {'-m ' if name in SWEEPS else ''}experiment={name}" in page.read_text()
        assert cfg.draw or cfg.callbacks.keys() & {"gradients", "scores"} or cfg.sweep.figures


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in FILES if name not in SWEEPS])
def test_one_run_ends_with_its_pictures(name, tmp_path, real_data):
    cfg = composed(*small(name))
    metrics = train(cfg, tmp_path)
    made = {path.stem for path in (tmp_path / "images").rglob("*.png")}
    wanted = set(cfg.draw) | ({"scores"} if "scores" in cfg.callbacks else set())
    wanted |= {"gradient_variance"} if "gradients" in cfg.callbacks else set()
    assert wanted <= made
    if cfg.expected:
        assert cfg.expected.metric in metrics


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_ends_with_its_figures(name, tmp_path, real_data):
    done = command("-m", *small(name), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = OmegaConf.load(FILES[name]).sweep.figures
    drawn = [Path(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("figure  ")]
    assert {re.sub(r"_\d$", "", path.stem) for path in drawn} == set(wanted), done.stdout
    assert all((tmp_path / path).is_file() for path in drawn)


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        ("{nothing:{}}", r"draw\.nothing: there is no such what"),
        ("{samples:{num_imagse:3}}", "num_imag"),
        ("{samples:{allow:os}}", r"draw\.samples\.allow: no such key"),
        ("{samples:3}", "names of what with keys are needed"),
    ],
)
def test_a_wrong_picture_is_refused_before_training(draw, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        check_draw(composed("data=fake", f"+draw={draw}"), tmp_path)


def test_a_run_ends_with_the_pictures_that_are_asked_for(run):
    folder, metrics = run("+draw={samples:{num_images:4},denoise:{corruption:mask,num_images:8},classes:{}}")
    assert {path.stem for path in folder.glob("images/*/*.png")} == {"samples", "denoise"}  # a vae has no classes
    assert metrics["denoise/error_noisy"] > 0


@pytest.mark.slow
def test_an_experiment_of_several_runs_asks_for_m(tmp_path):
    done = command("experiment=beta", cwd=tmp_path)
    assert done.returncode == 2
    assert "error: experiment=beta trains several runs: add -m" in done.stderr


def test_a_saved_config_cannot_reach_past_the_keys_of_a_what(tmp_path):
    """A dotted key would name a target that the check of targets does not see."""
    cfg = OmegaConf.create({"draw": {"denoise": {"corruption._target_": "os.getcwd"}}})
    with pytest.raises(ConfigError, match=r"draw\.denoise\.corruption\._target_: no such key"):
        check_draw(cfg, tmp_path)
    cfg = OmegaConf.create({"draw": {"denoise": {"corruption": {"_target_": "os.getcwd"}}}})
    with pytest.raises(ConfigError, match="would be run"):
        check_targets(cfg, tmp_path / "config.yaml")
