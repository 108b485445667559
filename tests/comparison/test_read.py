"""What a run folder says, and what is left out of it, with the reason."""

import json
import os
import time

import pytest
import yaml
from helpers.folders import write_run
from helpers.runs import TESTS

from vae_exp.comparison.read import read_runs
from vae_exp.config import ConfigError
from vae_exp.runs.folder import fingerprint

ROWS = [
    {"step": 9, "epoch": 0, "val/elbo": -110.0, "val/kl": 10.0, "val/recon": 100.0},
    {"step": 14, "epoch": 1, "train/elbo": -104.0},
    {"step": 19, "epoch": 1, "val/elbo": -101.0, "val/kl": 11.0, "val/recon": 90.0},
    {"step": 29, "epoch": 2, "val/elbo": -103.0, "val/kl": 12.0, "val/recon": 91.0},
    {"step": 30, "epoch": 2, "test/elbo": -102.0},
]


def one(folder):
    (run,), left_out = read_runs([str(folder)])
    assert left_out == {}
    return run


def test_the_validation_is_that_of_the_weights_that_were_tested(tmp_path):
    run = one(write_run(tmp_path / "best", elbo=-102.0, kl=20.0, rows=ROWS))
    assert run.numbers == {
        "test/elbo": -102, "test/kl": 20, "test/recon": 82, "val/elbo": -101, "val/kl": 11, "val/recon": 90
    }  # fmt: skip
    assert run.curves["step"] == [9, 19, 29]
    assert run.curves["kl"] == [10, 11, 12]
    assert "seconds" not in run.curves
    last = write_run(tmp_path / "last", rows=ROWS, metrics={"test/elbo": -102.0})  # no best weights were kept
    assert one(last).numbers == {"test/elbo": -102, "val/elbo": -103, "val/kl": 12, "val/recon": 91}


def test_the_config_is_what_yaml_reads():
    """Of a run of an earlier commit, whose file is read block by block."""

    def leaves(node, prefix=""):
        for key, value in node.items():
            yield from (
                leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [(f"{prefix}{key}", value)]
            )

    folder = TESTS / "fixtures" / "old_run"
    whole = dict(leaves(yaml.safe_load((folder / "config.yaml").read_text())))
    assert one(folder).config == {k: str(v) if isinstance(v, list | dict) else v for k, v in whole.items()}


def test_a_lower_metric_may_be_the_best(tmp_path):
    config = {"monitor": "val/recon", "monitor_mode": "min"}
    run = one(write_run(tmp_path / "a", rows=ROWS, config=config, more={"best/val/recon": 90.0}))
    assert run.numbers["val/elbo"] == -101


def test_folders_stand_for_what_lies_in_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    deep = write_run(tmp_path / "outputs" / "sweeps" / "s" / "0")
    write_run(tmp_path / "outputs" / "one")
    for parent in (deep, tmp_path / "outputs"):  # W&B's own config.yaml is none of a run
        (parent / "wandb" / "files").mkdir(parents=True)
        (parent / "wandb" / "files" / "config.yaml").write_text("a: 1")
    (tmp_path / "outputs" / "link").symlink_to(deep)
    for pattern in ("outputs/**", "outputs", "outputs/*", str(tmp_path / "outputs")):
        runs, left_out = read_runs([pattern])
        assert sorted(run.record["run_id"] for run in runs) == ["0", "one"], pattern
        assert left_out == {}
    assert len(read_runs(["outputs/one", "outputs/one", "outputs/**"])[0]) == 2
    assert [run.folder.name for run in read_runs(["outputs/o*"])[0]] == ["one"]


@pytest.mark.parametrize("pattern", ["nowhere", "nowhere/*", "empty"])
def test_a_pattern_without_runs_is_refused(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=f"run={pattern}".replace("*", r"\*")):
        read_runs([pattern])


def test_what_cannot_be_read_is_named_with_the_reason(tmp_path):
    write_run(tmp_path / "good")
    write_run(tmp_path / "failed", status="failed", error="NonFiniteError: nan\nmore")
    write_run(tmp_path / "running", status="running")
    write_run(tmp_path / "torn")
    (tmp_path / "torn" / "run.json").write_text('{"run_id": "torn", "sta')
    write_run(tmp_path / "yaml")
    (tmp_path / "yaml" / "config.yaml").write_text("a: [1,\nb: {")
    write_run(tmp_path / "begun")
    (tmp_path / "begun" / "run.json").unlink()
    write_run(tmp_path / "unknown", bound={"of": "log p(x)"})
    content = json.loads((tmp_path / "unknown" / "run.json").read_text())
    (tmp_path / "unknown" / "run.json").write_text(json.dumps(content | {"bound": {"of": "log p(x)"}}))
    write_run(tmp_path / "list", more={})
    (tmp_path / "list" / "run.json").write_text("[1]")
    runs, left_out = read_runs([str(tmp_path)])
    assert [run.folder.name for run in runs] == ["good"]
    assert {folder.name: why for folder, why in left_out.items()} == {
        "failed": "failed: NonFiniteError: nan",
        "running": "cut off",
        "torn": "run.json is damaged",
        "yaml": "config.yaml is torn",
        "begun": "it has no run.json: the run never began",
        "unknown": "run.json has no bound, so nobody knows what its numbers compare with",
        "list": "run.json is damaged",
    }
    with pytest.raises(ConfigError, match=r"none of the 1 runs can be compared:\n  .*failed: NonFiniteError"):
        read_runs([str(tmp_path / "failed")])


def test_a_missing_or_torn_metrics_csv_costs_the_curves_alone(tmp_path):
    none = write_run(tmp_path / "none")
    (none / "metrics.csv").unlink()
    run = one(none)
    assert (run.curves, run.notes) == ({}, ["no metrics.csv: no curves"])
    assert run.numbers["test/elbo"] == -100
    assert run.numbers["val/elbo"] == -99.5  # best/val/elbo of run.json
    assert "val/kl" not in run.numbers
    cut = write_run(tmp_path / "cut", rows=ROWS[:3])
    with (cut / "metrics.csv").open("a") as file:
        file.write("39,2,-99.0,1")
    run = one(cut)
    assert run.curves["step"] == [9, 19]
    assert run.notes == ["metrics.csv: 1 torn row left out"]
    for name, content in (("bytes", b"step,val/elbo\n1,\xff\xfe\n"), ("word", b"step,val/elbo\n1,-1\n2,x\n")):
        folder = write_run(tmp_path / name)
        (folder / "metrics.csv").write_bytes(content)
        assert "torn" in one(folder).notes[0]
    empty = write_run(tmp_path / "empty")
    (empty / "metrics.csv").write_text("")
    assert one(empty).curves == {}
    assert one(empty).notes


def test_nll_is_taken_where_it_was_evaluated_on_these_weights(tmp_path):
    folder = write_run(tmp_path / "a")
    (folder / "checkpoints").mkdir()
    weights = folder / "checkpoints" / "best.ckpt"
    weights.write_bytes(b"new")
    content = {
        "checkpoint": "best.ckpt", "weights": fingerprint(weights), "data": {"test": "cccc"}, "nll": 95.5,
        "nll_samples": 5000, "elbo": -1.0,
    }  # fmt: skip
    path = folder / "evaluation.json"
    path.write_text(json.dumps(content))
    assert one(folder).numbers["test/nll(K=5000)"] == 95.5
    assert one(folder).numbers["test/elbo"] == -100  # the test at the end of training, where there is one
    future = time.time() + 60
    os.utime(weights, (future, future))  # copied later, but the same
    assert one(folder).numbers["test/nll(K=5000)"] == 95.5
    for changes, why in (
        ({"weights": "0" * 16}, "earlier weights"),
        ({"data": {"test": "dddd"}}, "other images"),
        ({"data": 3}, "torn"),
    ):
        path.write_text(json.dumps(content | changes))
        os.utime(weights, (time.time() + 60,) * 2)
        run = one(folder)
        assert why in run.notes[0]
        assert not any("nll" in name for name in run.numbers)
    weights.rename(weights.with_name("last.ckpt"))
    path.write_text(json.dumps(content | {"checkpoint": "last.ckpt"}))
    assert one(folder).numbers["test/nll(K=5000, last weights)"] == 95.5


@pytest.mark.parametrize(("target", "bound"), [("IWAE", "K=5"), ("MIWAE", "K=5"), ("CIWAE", "K=5"), ("PIWAE", "K=10")])
def test_an_importance_weighted_bound_says_its_latents(tmp_path, target, bound):
    config = {"objective._target_": f"vae_exp.objectives.{target}", "objective.num_samples": 5}
    config |= {"objective.num_groups": 2} if target in ("MIWAE", "PIWAE") else {}
    rows = [{"step": 9, "val/elbo": -100.0, "val/iwae": -97.0}]
    run = one(write_run(tmp_path / "a", config=config, rows=rows, more={"test/iwae": -98.0}))
    assert run.numbers[f"test/iwae({bound})"] == -98
    assert run.numbers[f"val/iwae({bound})"] == -97


def test_a_number_that_is_none_is_missing(tmp_path):
    run = one(write_run(tmp_path / "a", more={"test/kl": None}))
    assert set(run.numbers) == {"test/elbo", "test/recon", "val/elbo", "val/kl", "val/recon"}
