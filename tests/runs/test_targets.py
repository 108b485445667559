"""What a saved config may name: each target of a hostile folder is refused before anything of it is run."""

import json
import sys
from pathlib import Path

import pytest
from helpers.runs import SMALL, composed, composed_on
from omegaconf import OmegaConf

import vae_exp
from vae_exp.config import CONF, ConfigError
from vae_exp.metrics.score import score_runs
from vae_exp.runs.resume import resumed_config
from vae_exp.runs.targets import check_links, check_paths, check_targets
from vae_exp.runs.trained import restore
from vae_exp.sweeps.job import job_process

FIXTURES = Path(__file__).parents[1] / "fixtures"
HOSTILE = (FIXTURES / "hostile_targets.txt").read_text().split()
CANARY = "import pathlib; pathlib.Path(__file__).with_name('ran').touch()\nclass Encoder: pass\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run folder that was never trained, in a folder with modules of somebody else."""
    (tmp_path / "here.py").write_text(CANARY)
    (tmp_path / "hereby" / "sub").mkdir(parents=True)
    for name in ("hereby/__init__.py", "hereby/sub/__init__.py"):
        (tmp_path / name).write_text(CANARY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    path = tmp_path / "run"
    path.mkdir()
    OmegaConf.save(composed(*SMALL), path / "config.yaml")
    (path / "run.json").write_text('{"status": "finished"}')
    return path


def hostile(folder: Path, **changes) -> None:
    """Changes keys of the config, with __ for the dots."""
    cfg = OmegaConf.load(folder / "config.yaml")
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
    OmegaConf.save(cfg, folder / "config.yaml")


def refused(folder: Path, target: str, **places) -> None:
    """Holds that each place refuses its node, and that nothing but parts of ours and of torch was imported for that."""
    before = set(sys.modules)
    for key, node in places.items():
        cfg = OmegaConf.create({})
        OmegaConf.update(cfg, key.replace("__", "."), node)
        with pytest.raises(ConfigError) as error:
            check_targets(cfg, folder / "config.yaml")
        assert target in str(error.value)
        assert "allow=" in str(error.value)
        assert len(str(error.value).splitlines()) <= 6
    assert not {"here", "hereby"} & (set(sys.modules) - before)
    assert not list(folder.parent.rglob("ran"))


def test_what_is_no_part_is_refused_wherever_it_stands(folder):
    for target in HOSTILE:
        node = {"_target_": target}
        nested = {"_target_": "vae_exp.encoders.MLP", "hidden": [1, [{"a": node}]]}
        refused(
            folder, target, encoder=node, decoder__hidden=[node], posterior=nested, objective__beta=node, name=node,
            prior__x=node | {"_partial_": True},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("callbacks.x", "torch.nn.Linear"), ("callbacks.x", "vae_exp.loggers.CSV"), ("logger.x", "torch.nn.Linear"),
        ("logger.x", "vae_exp.loggers.push.push"), ("logger.x", "vae_exp.callbacks.Checkpoint"),
        ("trainer.profiler", "pytorch_lightning.profilers.AdvancedProfiler"), ("data.source", "torch.nn.Linear"),
        ("trainer.strategy", "pytorch_lightning.strategies.DDPStrategy"), ("data", "vae_exp.data.download.FileSet"),
        ("optimizer", "vae_exp.encoders.MLP"), ("model", "vae_exp.data.Images"), ("trainer", "vae_exp.models.VAE"),
        ("callbacks.x", "pytorch_lightning.callbacks.lambda_function.LambdaCallback.setup"),
    ],
)  # fmt: skip
def test_each_group_takes_its_own_kind(folder, key, target):
    refused(folder, target, **{key.replace(".", "__"): {"_target_": target}})


def test_every_target_of_our_config_and_of_old_runs_is_a_part(folder):
    check_targets(OmegaConf.load(FIXTURES / "old_run" / "config.yaml"), folder)
    kinds = {
        "callbacks": "callbacks.x", "loggers": "logger.x", "data": "data.source", "objectives": "objective",
        "schedules": "objective.beta", "optim": "optimizer", "models": "model",
    }  # fmt: skip
    for target in (FIXTURES / "targets.txt").read_text().split():
        key = "trainer" if target.endswith("Trainer") else kinds.get(target.split(".")[-2], "encoder")
        check_targets(
            OmegaConf.create({}) if key is None else OmegaConf.from_dotlist([f"{key}._target_={target}"]), folder
        )
    for file in Path(CONF).rglob("*.yaml"):
        group = file.relative_to(CONF).parts[0]
        if group in {*kinds, "model", "encoder", "decoder", "posterior", "prior", "likelihood", "objective", "logger"}:
            check_targets(OmegaConf.create({group: OmegaConf.load(file)}), folder)


@pytest.mark.parametrize("key", ["_args_", "_mode_", "_target", "_call_", "_execution_whitelist_"])
def test_no_other_key_of_hydra_is_in_a_saved_config(folder, key):
    cfg = OmegaConf.load(folder / "config.yaml")
    cfg.encoder[key] = ["x"]
    if key.endswith("_"):
        with pytest.raises(ConfigError, match=f"encoder.{key}"):
            check_targets(cfg, folder)


def test_allow_names_modules_and_nothing_that_only_begins_so(folder):
    hostile(folder, encoder___target_="here.Encoder")
    hostile(folder, prior={"_target_": "hereby.sub.Encoder"})
    cfg = OmegaConf.load(folder / "config.yaml")
    for allow in ("here", ["here"], "here.Encoder", "hereby", ["hereby", "her"]):
        with pytest.raises(ConfigError, match="allow=here"):
            check_targets(cfg, folder, allow)
    check_targets(cfg, folder, ["here", "hereby.sub"])
    check_targets(cfg, folder, ["here.Encoder", "hereby.sub.Encoder"])


def test_every_way_to_read_a_run_asks(folder):
    (folder / "checkpoints").mkdir()
    for name in ("best", "last"):
        (folder / "checkpoints" / f"{name}.ckpt").touch()
    hostile(folder, decoder___target_="here.Encoder")
    (folder.parent / "ran").unlink(missing_ok=True)
    for read in (restore, vae_exp.load, lambda run: score_runs(composed_on(run, "evaluate"))):
        with pytest.raises(ConfigError, match=r"decoder._target_=here.Encoder would be run.*\n.*allow=here"):
            read(folder)
    (folder / "run.json").write_text('{"status": "new"}')
    assert job_process(folder) == 2
    assert not (folder.parent / "ran").exists()
    for read in (restore, vae_exp.load):  # the decoder may be made now, but the weights are empty files
        with pytest.raises(ConfigError) as error:
            read(folder, allow="here")
        assert "would be run" not in str(error.value)
    assert (folder.parent / "ran").exists()


def test_a_job_trusts_the_config_that_was_written_for_it_alone(folder, monkeypatch):
    from vae_exp.launchers import written_in
    from vae_exp.sweeps import job

    monkeypatch.setattr(job, "train", lambda cfg, folder: None)
    hostile(folder, encoder___target_="here.Encoder")
    (folder / "run.json").write_text('{"status": "new"}')
    wrote = written_in(folder)
    assert job_process(folder, wrote) == 0
    assert job_process(folder, "0" * 64) == 2
    hostile(folder, data__root="elsewhere", resume=str(folder))  # what `train` itself writes there
    assert job_process(folder, wrote) == 0
    hostile(folder, callbacks__best__dirpath="/elsewhere")
    assert job_process(folder, wrote) == 2


WRITING = [
    ("logger.csv.save_dir", "/elsewhere"), ("logger.csv.save_dir", "elsewhere"),
    ("logger.csv.save_dir", "${run_dir:}/.."),
    ("callbacks.best.dirpath", "/elsewhere"), ("callbacks.best.dirpath", "."), ("callbacks.best.dirpath", "~/x"),
    ("callbacks.best.filename", "../../x"), ("callbacks.last.filename", "/x"),
    ("logger.tb", {"_target_": "pytorch_lightning.loggers.TensorBoardLogger", "name": "../../x"}),
    ("logger.tb", {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": "/tmp", "name": "x"}),
    ("logger.mlflow", {"_target_": "vae_exp.loggers.make_mlflow", "tracking_uri": "http://somewhere"}),
    ("logger.mlflow", {"_target_": "vae_exp.loggers.make_mlflow", "tracking_uri": "sqlite:////elsewhere/x.db"}),
    ("logger.wandb", {"_target_": "vae_exp.loggers.make_wandb", "dir": "/elsewhere"}),
    ("callbacks.prune", {"_target_": "vae_exp.pruning.Prune", "storage": "sqlite:///x.db"}),
    ("trainer.default_root_dir", "/elsewhere"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRITING)
def test_a_saved_config_writes_into_its_own_folder_alone(folder, key, value):
    hostile(folder, **{key.replace(".", "__"): value})
    cfg = OmegaConf.load(folder / "config.yaml")
    with pytest.raises(ConfigError, match=f"{key}.*lies outside the run folder"):
        check_paths(cfg, folder / "config.yaml", OmegaConf.create({}))
    leaf, given = (key, value) if isinstance(value, str) else next(
        (f"{key}.{name}", text) for name, text in value.items() if name != "_target_" and text != "${run_dir:}"
    )  # fmt: skip
    check_paths(cfg, folder / "config.yaml", OmegaConf.from_dotlist([f"{leaf}={given}"]))


@pytest.mark.slow
def test_what_training_saves_stays_inside(folder):
    cfg = OmegaConf.load(folder / "config.yaml")
    cfg.callbacks.best.dirpath = str(folder / "checkpoints" / "more")
    cfg.callbacks.best.filename = "a/{step}"
    for option in ("mlflow", "tensorboard", "wandb"):
        cfg.logger = OmegaConf.to_container(composed(*SMALL, f"logger={option}").logger)
        check_paths(cfg, folder / "config.yaml", OmegaConf.create({}))


@pytest.mark.parametrize(
    "name", ["checkpoints", "images", "images/samples", "export", "wandb", "tensorboard", "wandb/run", "tensorboard/a"]
)  # fmt: skip
def test_a_link_that_leads_out_is_refused_where_it_would_be_followed(folder, name):
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(ConfigError, match=f"{name} is a link"):
        check_links(folder)
    with pytest.raises(ConfigError, match=f"{name} is a link"):
        restore(folder)


def test_links_within_a_run_and_to_a_run_are_followed(folder):
    (folder / "wandb" / "run-1").mkdir(parents=True)
    (folder / "wandb" / "latest-run").symlink_to("run-1")
    (folder / "report.html").symlink_to("/elsewhere")  # replaced, see vae_exp.files
    (folder / "wandb" / "run-1" / "logs").mkdir()
    (folder / "wandb" / "run-1" / "logs" / "debug-core.log").symlink_to("/elsewhere")  # of a run before these checks
    (folder.parent / "sweep").symlink_to("run")
    check_links(folder.parent / "sweep")


@pytest.mark.slow
def test_a_resumed_run_asks_too(run, monkeypatch):
    folder, _ = run()
    hydra = OmegaConf.create({"overrides": {"task": [f"resume={folder}", "trainer.max_epochs=4"]}})

    def resumed(*words, **changes):
        cfg = composed(*SMALL, "trainer.max_epochs=4")
        cfg.resume = str(folder)
        for key, value in changes.items():
            OmegaConf.update(cfg, key.replace("__", "."), value, force_add=True)
        return resumed_config(cfg, OmegaConf.merge(hydra, {"overrides": {"task": [*hydra.overrides.task, *words]}}))

    hostile(folder, callbacks__x={"_target_": "here.Norm"}, callbacks__best__dirpath="/elsewhere")
    with pytest.raises(ConfigError, match=r"callbacks.x._target_=here.Norm would be run"):
        resumed()
    with pytest.raises(ConfigError, match=r"callbacks\.best\.dirpath=/elsewhere"):
        resumed("allow=here", allow="here")
    word = "callbacks.best.dirpath=/elsewhere"
    assert resumed("allow=here", word, allow="here", callbacks__best__dirpath="/elsewhere").callbacks.x
    assert resumed("callbacks=default").callbacks.get("x") is None
    assert resumed("callbacks.x._target_=here.Mine", word, callbacks__x___target_="here.Mine").callbacks.x
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
