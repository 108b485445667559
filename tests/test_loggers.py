"""What the loggers write, read back from where they wrote it."""

import csv
import json
import subprocess
import sys
import time
from functools import partial

import pytest
from helpers.cases import slow_but
from helpers.loggers import Own
from helpers.runs import PICTURED, SMALL, command, composed, resume, wandb_records
from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from omegaconf import OmegaConf

from vae_exp.config import CONF
from vae_exp.loggers import CSV
from vae_exp.metrics.score import score_runs
from vae_exp.page.report import report_runs
from vae_exp.runs.resume import resumed_config
from vae_exp.runs.trained import Trained
from vae_exp.training.job import train
from vae_exp.what.make import generate_runs
from vae_exp.what.onnx import export_runs


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_holds_every_row_and_grows_by_columns(tmp_path):
    logger = CSV(str(tmp_path), first_step=0)
    logger.log_metrics({"a": 1.0}, step=0)
    logger.log_metrics({"b": 2.0}, step=1)
    logger.log_metrics({"a": 3.0, "b": 4.0}, step=2)
    rows = read(tmp_path / "metrics.csv")
    seconds = [float(row.pop("seconds")) for row in rows]
    assert rows == [
        {"step": "0", "a": "1.0", "b": ""},
        {"step": "1", "a": "", "b": "2.0"},
        {"step": "2", "a": "3.0", "b": "4.0"},
    ]
    assert seconds == sorted(seconds)


def test_seconds_of_training_go_on_from_the_last_row_that_a_resumed_run_keeps(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    logger = CSV(str(tmp_path), first_step=0)
    now[0] = 107.0  # what is done before training does not count
    logger.log_hyperparams({})
    for step in range(3):
        now[0] += 10
        logger.log_metrics({"a": float(step)}, step=step)
    now[0] = 5.0  # another process, with another clock
    resumed = CSV(str(tmp_path), first_step=2)
    resumed.log_hyperparams({})
    now[0] = 7.5
    resumed.log_metrics({"a": 2.0}, step=2)
    assert [float(row["seconds"]) for row in read(tmp_path / "metrics.csv")] == [10.0, 20.0, 22.5]


def test_a_file_without_seconds_goes_on_without_them(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,a\n0,1.0\n1,2.0\n")
    CSV(str(tmp_path), first_step=1).log_metrics({"a": 3.0, "b": 4.0}, step=1)
    assert read(tmp_path / "metrics.csv") == [{"step": "0", "a": "1.0", "b": ""}, {"step": "1", "a": "3.0", "b": "4.0"}]


def test_csv_goes_on_in_the_file_of_a_resumed_run(tmp_path):
    """The rows from the step on where it was resumed are dropped: they are logged again."""
    logger = CSV(str(tmp_path), first_step=0)
    for step in range(4):
        logger.log_metrics({"a": float(step)}, step=step)
    CSV(str(tmp_path), first_step=2).log_metrics({"a": 9.0}, step=3)
    assert [row["a"] for row in read(tmp_path / "metrics.csv")] == ["0.0", "1.0", "9.0"]


OWN = "+logger.own._target_=helpers.loggers.Own"


@pytest.mark.parametrize("chosen", ["logger=csv", "logger=none"])
def test_a_logger_of_ones_own_is_named_by_yaml(run, chosen):
    """It gets the arguments that yaml states and no others, and the config; checkpoints lie where they always lie."""
    run_id = "+logger.own.run_id='${run_id:}'"
    folder, _ = run(chosen, OWN, "+logger.own.path='${run_dir:}/own.txt'", run_id, folder="with")
    record = json.loads((folder / "run.json").read_text())
    assert Own.made[-1].arguments == {"path": f"{folder}/own.txt", "run_id": record["run_id"]}
    assert Own.made[-1].hparams["latent_dim"] == 3
    assert {2, 5} <= set(Own.made[-1].steps)
    assert (folder / "checkpoints" / "best.ckpt").exists()
    run(chosen, OWN, folder="without")
    assert Own.made[-1].arguments == {}


def test_what_a_run_tells_its_loggers_is_not_written_into_its_config(run, tmp_path):
    """Moved and resumed, it logs where it lies then; the next run of a process knows nothing of the one before."""
    folder, _ = run("test=false", OWN, "+logger.own.path='${run_dir:}'", "+logger.own.first_step='${first_step:}'")
    assert OmegaConf.load(folder / "config.yaml").logger.csv._get_node("save_dir")._value() == "${run_dir:}"
    assert composed(*SMALL).logger.csv._get_node("save_dir")._value() == "${run_dir:}"
    moved = folder.rename(tmp_path / "moved")
    resume(moved, trainer__max_epochs=3)
    assert Own.made[-1].arguments == {"path": str(moved), "first_step": 6}
    assert not folder.exists()
    assert [int(row["step"]) for row in read(moved / "metrics.csv") if row["val/elbo"]] == [2, 5, 8]


def test_a_run_whose_config_does_not_state_the_folder_is_resumed(run):
    """As those of before loggers stated it."""
    folder, _ = run("logger=tensorboard", "test=false")
    cfg = OmegaConf.load(folder / "config.yaml")
    for key in ("csv.save_dir", "csv.first_step", "tensorboard.save_dir"):
        group, name = key.split(".")
        del cfg.logger[group][name]
    OmegaConf.save(cfg, folder / "config.yaml")
    hydra = HydraConf()
    hydra.overrides.task = [f"resume={folder}", "trainer.max_epochs=3"]
    asked = composed(*SMALL, "trainer.max_epochs=3")
    asked.resume = str(folder)
    cfg = resumed_config(asked, hydra)
    cfg.resume = str(folder)
    train(cfg, folder)
    assert [int(row["step"]) for row in read(folder / "metrics.csv") if row["val/elbo"]] == [2, 5, 8]
    assert len(list((folder / "tensorboard").glob("events.out*"))) == 2


COMMANDS = {
    "evaluate": (score_runs, ["metrics=[elbo]"]),
    "generate": (partial(generate_runs, what="samples"), ["what=samples", "num_images=1"]),
    "report": (report_runs, []),
    "export": (export_runs, []),
}


@pytest.mark.parametrize("name", slow_but(["evaluate"], COMMANDS))
def test_every_command_adds_its_results_to_the_record_in_wandb(run, monkeypatch, name):
    folder, _ = run()
    logged = []
    monkeypatch.setattr(Trained, "log_wandb", lambda self, numbers, pictures: logged.append((numbers, pictures)))
    command, options = COMMANDS[name]
    with initialize_config_dir(CONF, version_base="1.3"):
        command(compose(name, [f"run='{folder}'", "accelerator=cpu", "progress=false", "logger=wandb", *options]))
    (added,) = logged
    assert any(added)


@pytest.mark.slow
def test_wandb_without_an_account_logs_offline_and_the_file_holds_the_curve(tmp_path):
    pictures = "callbacks.pictures.every_n_epochs=1"  # else a sweep makes none
    done = command("-m", *PICTURED, "logger=wandb", "model=vae,cvae", pictures, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    ids = set()
    for job in ("0", "1"):
        records = wandb_records(sweep / job)
        history = [record["history"]["item"] for record in records if record["type"] == "history"]
        for key in ("train/elbo", "val/elbo", "test/elbo"):
            logged = {item["trainer/global_step"]: item[key] for item in history if key in item}
            expected = {int(row["step"]): float(row[key]) for row in read(sweep / job / "metrics.csv") if row[key]}
            assert logged == pytest.approx(expected)
            assert logged
        text = json.dumps(records)
        for name in ("samples", "reconstructions", *(["classes"] if job == "1" else [])):
            assert f"images/{name}" in text
        (run,) = (record["run"] for record in records if record["type"] == "run")
        configs = [record["config"]["update"] for record in records if record["type"] == "config"]
        assert any(config.get("latent_dim") == 3 for config in configs)
        assert run["run_group"] == sweep.name
        assert {f"model={'vae' if job == '0' else 'cvae'}", "data=fake"} <= set(run["tags"])
        metrics = [record["metric"] for record in records if record["type"] == "metric"]
        assert any(m.get("name") == "val/elbo" and m["step_metric"] == "trainer/global_step" for m in metrics)
        (closed,) = (record["exit"] for record in records if record["type"] == "exit")
        assert closed.get("exit_code", 0) == 0
        ids.add(run["run_id"])
        assert json.loads((sweep / job / "run.json").read_text())["run_id"] == run["run_id"]
    assert len(ids) == 2


@pytest.mark.slow
def test_wandb_closes_a_failed_run_as_failed(tmp_path):
    done = command(*SMALL, "logger=wandb", "optimizer.lr=1e30", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 2
    (closed,) = (record["exit"] for record in wandb_records(tmp_path / "run") if record["type"] == "exit")
    assert closed["exit_code"] == 1


@pytest.mark.slow
def test_wandb_with_a_key_and_no_server_goes_offline_within_seconds(tmp_path):
    """Nobody listens on port 9 of this machine."""
    done = command(
        *SMALL, "logger=wandb", "hydra.run.dir=run", cwd=tmp_path,
        WANDB_API_KEY="0" * 40, WANDB_BASE_URL="http://localhost:9",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert wandb_records(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["wall_seconds"] < 60


@pytest.mark.slow
def test_tensorboard_holds_the_curve(tmp_path):
    done = command(*SMALL, "logger=tensorboard", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = {path.parent for path in (tmp_path / "run").rglob("events.out*")}
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    logged = [event.value for event in accumulator.Scalars("val/elbo")]
    expected = [float(row["val/elbo"]) for row in read(tmp_path / "run" / "metrics.csv") if row["val/elbo"]]
    assert logged == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_mlflow_holds_the_curve(tmp_path):
    done = command(*SMALL, "logger=mlflow", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    script = (
        "from mlflow.tracking import MlflowClient\n"
        "client = MlflowClient('sqlite:///outputs/mlflow.db')\n"
        "run, = client.search_runs([e.experiment_id for e in client.search_experiments()])\n"
        "assert run.info.status == 'FINISHED', run.info.status\n"
        "print([m.value for m in client.get_metric_history(run.info.run_id, 'val/elbo')])\n"
    )
    read_back = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = [float(row["val/elbo"]) for row in read(tmp_path / "run" / "metrics.csv") if row["val/elbo"]]
    assert json.loads(read_back.stdout.splitlines()[-1]) == pytest.approx(expected)
