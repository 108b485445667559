"""What the loggers write, read back from where they wrote it."""

import csv
import json
import subprocess
import sys

import pytest
from helpers.runs import PICTURED, SMALL, command, wandb_records

from vae_exp.loggers import CSV


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_holds_every_row_and_grows_by_columns(tmp_path):
    logger = CSV(str(tmp_path))
    logger.log_metrics({"a": 1.0}, step=0)
    logger.log_metrics({"b": 2.0}, step=1)
    logger.log_metrics({"a": 3.0, "b": 4.0}, step=2)
    rows = read(tmp_path / "metrics.csv")
    assert rows == [
        {"step": "0", "a": "1.0", "b": ""},
        {"step": "1", "a": "", "b": "2.0"},
        {"step": "2", "a": "3.0", "b": "4.0"},
    ]


def test_csv_goes_on_in_the_file_of_a_resumed_run(tmp_path):
    CSV(str(tmp_path)).log_metrics({"a": 1.0}, step=0)
    CSV(str(tmp_path)).log_metrics({"a": 9.0}, step=1)
    logger = CSV(str(tmp_path))
    logger.truncate(1)
    logger.log_metrics({"a": 2.0}, step=1)
    assert [row["a"] for row in read(tmp_path / "metrics.csv")] == ["1.0", "2.0"]


@pytest.mark.slow
def test_wandb_without_an_account_logs_offline_and_the_file_holds_the_curve(tmp_path):
    done = command("-m", *PICTURED, "logger=wandb", "model=vae,cvae", cwd=tmp_path)
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
        assert run["config"]["update"]["latent_dim"] == 3
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
