"""W&B as a view of metrics.csv: names, tags, config, variables, and the files of runs that were killed."""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.runs import PICTURED, SMALL, command, composed, environment, record, resume, wandb_records
from omegaconf import OmegaConf
from pytorch_lightning.loggers import WandbLogger

from vae_exp import resolvers
from vae_exp.loggers.wandb import WandB, link, make_wandb
from vae_exp.runs.targets import check_links


def stated(*overrides):
    """What yaml hands to the logger."""
    return composed(*overrides, "logger=wandb").logger.wandb


@pytest.mark.slow
def test_a_run_is_named_by_what_was_typed_and_its_seed():
    assert stated().name == "vae_mnist seed=0"
    assert stated("model=beta_vae", "objective.beta=4", "seed=3").name == "beta_vae_mnist beta=4 seed=3"
    changes_no_number = ("trainer=cpu", "report=false", "callbacks.latents=null", "data.root=/data")
    assert stated(*changes_no_number, "name=mine", "posterior=flow").name == "mine posterior=flow seed=0"
    same_word = ("encoder.hidden=[8]", "decoder.hidden=[9]")
    assert stated(*same_word).name == "vae_mnist encoder.hidden=[8] decoder.hidden=[9] seed=0"
    assert stated(*SMALL, "seed=7").name == "vae_fake image_shape=[1,8,8] size=64 val_size=16 … seed=7"


def test_in_a_sweep_the_name_has_what_the_jobs_do_not_share(monkeypatch):
    """Hydra writes some words in another way for a job."""
    shared = ["data.batch_size=16", "encoder.hidden=[8, 8]", "report=false", "logger=wandb"]
    monkeypatch.setattr(sys, "argv", ["vae_exp", "-m", "latent_dim=2, 4", "seed=0,1", *shared])
    job = ("latent_dim=4", "seed=1", "data.batch_size=16", "encoder.hidden=[8,8]", "report=False")
    assert stated(*job, "hydra.mode=MULTIRUN").name == "vae_mnist latent_dim=4 seed=1"


def test_tags_are_the_options_that_were_typed_and_no_longer_than_wandb_takes(monkeypatch):
    assert list(stated("latent_dim=4", "seed=1", "callbacks.latents=null").tags) == []
    chosen = ("model=cvae", "data=fake", "+schedule@optimizer.lr=linear")
    assert list(stated(*chosen).tags) == ["model=cvae", "data=fake", "schedule@optimizer.lr=linear"]
    monkeypatch.setattr(resolvers, "_typed", lambda: [("likelihood", "l" * 99), ("experiment", "null")])
    assert resolvers.tags() == ["likelihood=" + "l" * 53]


@pytest.mark.parametrize(("length", "said"), [(0, "has 0"), (65, "has 65")])
def test_a_tag_that_wandb_does_not_take_is_refused(tmp_path, length, said):
    with pytest.raises(ValueError, match=f"1 to 64 letters.*{said}"):
        make_wandb(str(tmp_path), "id", tags=["a" * length])


VARIABLES = {
    "WANDB_PROJECT": ("project", "theirs", "theirs"),
    "WANDB_NAME": ("name", "theirs", "theirs"),
    "WANDB_RUN_GROUP": ("group", "theirs", "theirs"),
    "WANDB_DIR": ("dir", "/theirs", "/theirs"),
    "WANDB_TAGS": ("tags", "a,b", ["a", "b"]),
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_wins_over_the_default_and_what_was_typed_over_the_variable(monkeypatch, variable):
    key, value, expected = VARIABLES[variable]
    monkeypatch.setenv(variable, value)
    seed = f"seed={1000 + list(VARIABLES).index(variable)}"  # of its own, for configs are kept between tests
    assert stated(seed)[key] == expected
    typed, mine = ("[mine]", ["mine"]) if key == "tags" else ("mine", "mine")
    assert stated(seed, f"logger.wandb.{key}={typed}")[key] == mine


def test_the_config_is_sent_without_callbacks_and_loggers(monkeypatch):
    sent = {}
    monkeypatch.setattr(WandbLogger, "log_hyperparams", lambda self, params: sent.update(params))
    cfg = OmegaConf.to_container(composed("logger=wandb"))
    WandB().log_hyperparams(cfg)
    assert cfg.keys() - sent.keys() == {"callbacks", "logger"}
    assert sent["latent_dim"] == 20


def test_links_are_where_leet_looks_for_runs_and_lead_there_as_long_as_the_run_does(tmp_path):
    outputs = tmp_path / "outputs"
    made = []
    for name in ("a", "b"):
        source = outputs / "vae_fake" / name / "wandb" / f"offline-run-1-{name}"
        source.mkdir(parents=True)
        link(source, outputs / "vae_fake" / name)
        link(source, outputs / "vae_fake" / name)  # a second command on this run
        made.append(outputs / source.name)
    assert [path.resolve().parent.parent.name for path in made] == ["a", "b"]
    outputs = outputs.rename(tmp_path / "other").rename(outputs)  # links are relative
    (outputs / "vae_fake" / "a").rename(outputs / "moved")
    link(outputs / "moved" / "wandb" / "offline-run-1-a", outputs / "moved")
    assert made[0].resolve().parent.parent.name == "moved"
    shutil.rmtree(outputs / "moved")
    link(outputs / "vae_fake" / "b" / "wandb" / "offline-run-1-b", outputs / "vae_fake" / "b")
    assert [path.name for path in outputs.glob("offline-run-*")] == ["offline-run-1-b"]
    elsewhere = tmp_path / "elsewhere" / "wandb" / "offline-run-1-c"
    elsewhere.mkdir(parents=True)
    link(elsewhere, tmp_path / "elsewhere")
    assert not list(tmp_path.glob("offline-run-*"))


def rows(folder):
    """The rows of metrics.csv as numbers; none before the file is there."""
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        read = list(csv.DictReader(file))
    return [{key: float(value) for key, value in row.items() if value and key != "seconds"} for row in read]


def logged(folder):
    """The rows in the one file of W&B, as metrics.csv has them; `_step` counts them."""
    history = [record["history"]["item"] for record in wandb_records(folder) if record["type"] == "history"]
    numbers = [item for item in history if "trainer/global_step" in item]
    assert [item["_step"] for item in numbers] == list(range(len(numbers)))
    return [
        {"step": item["trainer/global_step"]}
        | {
            key: value
            for key, value in item.items()
            if key[0] != "_" and key.split("/")[0] not in ("trainer", "images")
        }
        for item in numbers
    ]


# Validation takes long, so that a run can be killed in it.
ENDLESS = (*SMALL, "logger=wandb", "data.source.size=108", "data.val_size=60", "data.eval_batch_size=1")
ENDLESS += ("trainer.max_epochs=100000", "callbacks.early_stopping=null", "test=false")


def killed(folder, words, when):
    """Starts a run and kills it at the moment when its rows are as `when` wants them; returns these rows."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vae_exp", *words], cwd=folder.parent, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not when(found := rows(folder)):
            assert process.poll() is None, "the run ended by itself"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return found


def in_training(rows, last):
    return rows[-1]["step"] >= last and rows[-1]["step"] % 3 != 2


def in_validation(rows, last):
    """After the last step of an epoch of three, before the row of its validation."""
    return rows[-1]["step"] >= last and rows[-1]["step"] % 3 == 2 and "train/elbo" in rows[-1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_after_kills_and_resumes_there_is_one_file_with_each_row_once(tmp_path, monkeypatch, seed):
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder, choose = tmp_path / "run", random.Random(seed)
    words = (*ENDLESS, "hydra.run.dir=run", f"seed={seed}")
    moments = choose.sample([in_training, in_validation, in_training, in_validation], 3)
    last = 0
    for moment in moments:
        last += choose.randint(4, 12)  # the first epoch has ended, with a checkpoint to resume from

        def reached(rows, moment=moment, last=last):
            return bool(rows) and moment(rows, last)

        killed(folder, words, reached)
        words = ("resume=run",)
    epochs = last // 3 + 3
    resume(folder, trainer__max_epochs=epochs)
    assert logged(folder) == [pytest.approx(row) for row in rows(folder)]
    steps = [row["step"] for row in rows(folder) if "train/elbo" in row]
    assert steps == list(range(3 * epochs))


@pytest.mark.slow
def test_the_file_of_a_killed_run_holds_the_rows_older_than_a_second(tmp_path):
    old = []

    def later(rows):
        if len(rows) > 20 and not old:
            old[:] = [time.monotonic(), rows]
        return old and time.monotonic() > old[0] + 3

    killed(tmp_path / "run", (*ENDLESS, "hydra.run.dir=run"), later)
    assert logged(tmp_path / "run")[: len(old[1])] == [pytest.approx(row) for row in old[1]]


@pytest.mark.slow
def test_a_resumed_run_keeps_its_pictures(tmp_path, monkeypatch):
    """Those of earlier epochs lie in the row that follows them, as they did before."""
    monkeypatch.setenv("WANDB_MODE", "offline")

    def drawn(folder):
        """Checksums of the samples, by the number of the row."""
        items = [record["history"]["item"] for record in wandb_records(folder) if record["type"] == "history"]
        name = "images/samples.filenames"
        return {item["_step"]: item[name][0].rpartition("_")[2] for item in items if name in item}

    folder = tmp_path / "outputs" / "run"
    every = ("callbacks.pictures.every_n_epochs=1", "test=false", "hydra.run.dir=outputs/run")
    assert command(*PICTURED, "logger=wandb", *every, cwd=tmp_path).returncode == 0
    first, kept = drawn(folder), len(rows(folder))
    resume(folder, trainer__max_epochs=3)
    second = drawn(folder)
    before = {row: checksum for row, checksum in first.items() if row < kept}
    assert len(before) == 2
    assert before.items() <= second.items()
    assert len(second) == 4  # and those of the third epoch, and of the end
    assert all(path.is_file() for path in folder.rglob("media/images/**/*.png"))
    check_links(folder)
    (link_to_run,) = (tmp_path / "outputs").glob("offline-run-*")
    assert link_to_run.resolve().is_relative_to(folder)


@pytest.mark.slow
def test_an_agent_of_a_sweep_finds_the_run_that_it_asked_for(tmp_path):
    line = ("--latent_dim=4", "--model=cvae", *(word for word in SMALL if "latent_dim" not in word), "logger=wandb")
    done = command(*line, "hydra.run.dir=run", cwd=tmp_path, WANDB_RUN_ID="agent123", WANDB_PROJECT="theirs")
    assert done.returncode == 0, done.stderr
    (run,) = (record["run"] for record in wandb_records(tmp_path / "run") if record["type"] == "run")
    assert (run["run_id"], run["project"]) == ("agent123", "theirs")
    assert record(tmp_path / "run")["run_id"] == "agent123"
    assert OmegaConf.load(tmp_path / "run" / "config.yaml").latent_dim == 4


@pytest.mark.slow
def test_a_run_goes_on_when_the_process_of_wandb_is_killed(tmp_path):
    words = (*SMALL, "logger=wandb", "hydra.run.dir=run", "trainer.max_epochs=300", "callbacks.early_stopping=null")
    process = subprocess.Popen(
        [sys.executable, "-m", "vae_exp", *words], cwd=tmp_path, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while len(rows(tmp_path / "run")) < 20:
        assert process.poll() is None
        time.sleep(0.002)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (core,) = [int(child) for child in children if "wandb-core" in Path(f"/proc/{child}/cmdline").read_text()]
    os.kill(core, signal.SIGKILL)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert said.count("logger.wandb has failed, the run goes on without it: ") == 1
    assert record(tmp_path / "run")["status"] == "finished"
    assert len([row for row in rows(tmp_path / "run") if "val/elbo" in row]) == 300


@pytest.mark.slow
def test_a_run_on_a_server_is_asked_to_go_back_to_the_last_row_that_it_keeps(tmp_path, monkeypatch):
    """What W&B records of it; there is no server here."""
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "wandb" / "run-20260101_000000-abc").mkdir(parents=True)  # from when it was online
    (tmp_path / "metrics.csv").write_text("step,train/elbo\n0,-3.0\n0,-2.5\n1,-2.0\n2,-1.0\n")
    try:
        make_wandb(str(tmp_path), "abc", first_step=2).log_metrics({"train/elbo": -1.5}, step=2)
    finally:
        wandb.finish()
    records = wandb_records(tmp_path)
    (begun,) = (record["run"] for record in records if record["type"] == "run")
    assert begun["branch_point"] == {"run": "abc", "metric": "_step", "value": 2}  # rows 0 to 2 are kept
    (row,) = (record["history"]["item"] for record in records if record["type"] == "history")
    assert (row["_step"], row["trainer/global_step"], row["train/elbo"]) == (3, 2, -1.5)
