"""The command: what it prints, what it writes, what it refuses; without torch."""

import pytest
from helpers.folders import write_run
from helpers.runs import command
from omegaconf import OmegaConf

from vae_exp.comparison.compare import compare_runs
from vae_exp.comparison.read import read_runs
from vae_exp.words import with_run


@pytest.fixture
def outputs(tmp_path):
    for model, elbo in (("vae", -100.0), ("cvae", -90.0), ("beta_vae", -120.0)):
        for seed in (0, 1):
            changes = {"bound": {"of": "log p(x|y)"}} if model == "cvae" else {}
            config = {"model._target_": f"vae_exp.models.{model}"}
            folder = tmp_path / "outputs" / f"{model} [{seed}]"
            write_run(folder, seed, elbo - seed, choices={"model": model}, config=config, **changes)
    write_run(tmp_path / "outputs" / "dead", status="failed", error="OutOfMemoryError: 3 GiB")
    return tmp_path


@pytest.mark.slow
def test_the_command_compares_what_a_pattern_names(outputs, no_torch):
    done = command("compare", "outputs/**", "by=model", "out=new/paper", cwd=outputs, PYTHONPATH=no_torch)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    order = [line.split()[0] for line in lines if line.startswith(("vae", "beta_vae", "cvae"))]
    assert order == ["vae", "beta_vae", "cvae"]
    assert "left out: 1, failed: OutOfMemoryError: 3 GiB: outputs/dead" in lines
    assert {path.name for path in (outputs / "new" / "paper").iterdir()} >= {"table.md", "table.tex", "table.csv"}


def test_it_reads_what_a_training_leaves(run, tmp_path, caplog):
    caplog.set_level("INFO", logger="vae_exp")
    metrics = [run(f"seed={seed}", folder=f"runs/{seed}")[1] for seed in (0, 1)]
    runs, left_out = read_runs([str(tmp_path / "runs")])
    assert left_out == {}
    for own, known in zip(runs, metrics, strict=True):
        assert own.notes == []
        assert own.numbers["test/elbo"] == known["test/elbo"]
        assert own.numbers["val/elbo"] == pytest.approx(known["best/val/elbo"], rel=1e-6)
        assert len(own.curves["kl"]) == len(own.curves["seconds"]) == 2
    cfg = {"run": str(tmp_path / "runs"), "by": None, "rank": None, "axis": "seconds", "out": str(tmp_path / "out")}
    (section,) = compare_runs(OmegaConf.create(cfg))
    mean = sum(each["test/elbo"] for each in metrics) / 2
    assert section.groups[0].interval("test/elbo").mean == pytest.approx(mean)
    assert f"{mean:.2f}" in caplog.text
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"compare.html", "elbo.svg", "recon.png"}


def test_words_without_a_key_are_runs():
    assert with_run(["a b/[0]", "by=model", "out/**"]) == ["by=model", "run=['a b/[0]','out/**']"]
    assert with_run(["--config-dir", "mine", "-c", "job", "a"]) == ["--config-dir", "mine", "-c", "job", "run=[a]"]
    assert with_run(["run=a", "--help"]) == ["run=a", "--help"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["nowhere"], "run=nowhere: there is no such folder"),
        ([], "run must be given"),
        (["outputs", "axis=time"], "axis=time: choose one of step, epoch, seconds"),
        (["outputs", "by=modle"], "by=modle: no run has this key; did you mean model?"),
    ],
)
@pytest.mark.slow
def test_what_is_wrong_is_told_in_a_few_lines(outputs, words, why):
    done = command(*words, cwd=outputs, module="vae_exp.compare")
    assert done.returncode == 2
    assert why in done.stderr
    assert "Traceback" not in done.stderr
