"""The plan of a sweep: which jobs a command line means, and that each has the config that it would have alone."""

import pytest
from helpers.cases import slow_but
from helpers.runs import SMALL, composed
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from vae_exp.config import CONF, options
from vae_exp.runs.build import build
from vae_exp.sweeps.plan import Planner, grid_of, words_of


def jobs(*words, ready=None):
    fixed, several = grid_of(list(words), ready)
    with initialize_config_dir(CONF, version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration("train", [], RunMode.MULTIRUN)
        planner = Planner(loader, config, fixed)
        return [planner.job(num, varied) for num, varied in enumerate(words_of(several))]


@pytest.mark.slow
def test_every_combination_is_a_job_the_last_varying_fastest():
    made = jobs(*SMALL, "model=vae,cvae", "seed=range(0,2)", "launcher.jobs=3", "sweep.name=a")
    assert [job.title for job in made] == [
        "model=vae seed=0",
        "model=vae seed=1",
        "model=cvae seed=0",
        "model=cvae seed=1",
    ]
    assert [job.choices["model"] for job in made] == ["vae", "vae", "cvae", "cvae"]
    assert len({job.cell for job in made}) == 4
    assert len({job.cfg["logger"]["wandb"]["group"] for job in jobs("logger=wandb", "seed=0,1,2")}) == 1
    assert not {"launcher", "sweep"} & (made[0].cfg.keys() | made[0].choices.keys())


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("seed=1,2", "model=cvae,vae"), ("optimizer=sgd,adam",), ("+schedule@optimizer.lr=linear,constant",)]
)
def test_each_job_has_the_config_that_it_would_have_alone(words):
    """Although the config files are read once for all jobs that choose the same options."""
    for job in jobs(*SMALL, *words):
        with initialize_config_dir(CONF, version_base="1.3"):
            cfg = compose("train", overrides=job.overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        alone = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]), resolve=True)
        for cfg in (alone, job.cfg):
            for free in ("launcher", "sweep", "logger", "report"):
                cfg.pop(free, None)
            cfg["data"].pop("root")
        assert job.cfg == alone


@pytest.mark.slow
def test_pictures_and_reports_are_left_out_unless_the_command_asks_for_them():
    plain = [word for word in SMALL if not word.startswith(("report", "callbacks."))]
    (job,) = jobs(*plain, "seed=range(0,1)")
    assert not job.cfg["report"]
    assert job.cfg["callbacks"]["pictures"] is None
    (job,) = jobs(*plain, "seed=range(0,1)", "report=true", "callbacks.pictures.every_n_epochs=2")
    assert job.cfg["report"]
    assert job.cfg["callbacks"]["pictures"]["every_n_epochs"] == 2


def test_a_ready_grid_gives_way_to_the_command_line():
    made = jobs(*SMALL, "objective=beta_elbo", "seed=7", ready={"seed": "range(0,3)", "objective.beta": "1,2"})
    assert [job.title for job in made] == ["objective.beta=1", "objective.beta=2"]
    assert all(job.cfg["seed"] == 7 for job in made)


@pytest.mark.parametrize("name", slow_but(["grid", "seeds"], [name for name in options("sweep") if name != "optuna"]))
def test_every_ready_sweep_is_one_of_configs_that_fit(name):
    """Each says in its grid what it varies."""
    ready = OmegaConf.to_container(composed(*SMALL, f"sweep={name}").sweep.grid)
    made = jobs(*SMALL, "model=beta_vae" if name == "beta" else "model=vae", ready=ready)
    assert [job.error for job in made] == [""] * len(made)
    assert len({job.cell for job in made}) == len(made) == {"grid": 1, "seeds": 5}.get(name, len(made))
    for job in made:
        if job.cfg["seed"] == 0:
            build(OmegaConf.create(job.cfg))


@pytest.mark.slow
def test_a_wrong_config_is_told_of_its_job_alone():
    good, typo, kind, option = jobs(*SMALL, "latent_dim=2,a", "model=vae,veal")
    assert (good.error, bool(good.cell)) == ("", True)
    assert "model=veal: no such option; did you mean vae?" in typo.error
    assert "latent_dim=a: a whole number is needed" in kind.error
    assert option.error
    (key, _) = jobs(*SMALL, "latent_dimm=2,3")
    assert "did you mean latent_dim?" in key.error
