"""W&B as a view of metrics.csv: names, tags, config, variables, and the files of runs that were killed."""

import csv
import random
import signal
import subprocess
import sys
import time

import pytest
from helpers.runs import SMALL, composed, environment, resume, wandb_records

from vae_exp import resolvers
from vae_exp.loggers.wandb import make_wandb


def stated(*overrides):
    """What yaml hands to the logger."""
    return composed(*overrides, "logger=wandb").logger.wandb


def test_a_run_is_named_by_what_was_typed_and_its_seed():
    assert stated().name == "vae_mnist seed=0"
    assert stated("model=beta_vae", "objective.beta=4", "seed=3").name == "beta_vae_mnist beta=4 seed=3"
    changes_no_number = ("trainer=cpu", "report=false", "callbacks.latents=null", "data.root=/data")
    assert stated(*changes_no_number, "name=mine", "posterior=flow").name == "mine posterior=flow seed=0"
    same_word = ("encoder.hidden=[8]", "decoder.hidden=[9]")
    assert stated(*same_word).name == "vae_mnist encoder.hidden=[8] decoder.hidden=[9] seed=0"
    assert stated(*SMALL, "seed=7").name == "vae_fake image_shape=[1,8,8] size=64 val_size=16 … seed=7"


def test_in_a_sweep_the_name_has_what_the_jobs_do_not_share(monkeypatch):
    typed = [
        "vae_exp",
        "-m",
        "latent_dim=2, 4",
        "seed=0,1",
        "data.batch_size=16",
        "encoder.hidden=[8, 8]",
        "logger=wandb",
    ]
    monkeypatch.setattr(sys, "argv", typed)
    job = ("latent_dim=4", "seed=1", "data.batch_size=16", "encoder.hidden=[8,8]")
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
