"""The command line, as a user types it, in processes of their own."""

import csv
import json
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from helpers.cases import slow_but
from helpers.runs import PICTURED, ROOT, SMALL, TESTS, WHATS, command
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

import vae_exp
from vae_exp.config import CONF
from vae_exp.help import help_page
from vae_exp.overrides import override
from vae_exp.training.job import _is_as_expected
from vae_exp.words import check_choices


def run_folders(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob("run.json"))


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_help_names_every_group(tmp_path, no_torch):
    done = command("--help", cwd=tmp_path, PYTHONPATH=no_torch)
    assert done.returncode == 0
    for group in (
        "model: ae, beta_vae, cvae",
        "encoder: columns, conv",
        "likelihood: bce, categorical_256",
        "prior: bernoulli, categorical, flow, mixture",
    ):
        assert group in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["path"]


@pytest.mark.slow
def test_to_show_a_config_needs_no_torch_and_to_train_does(tmp_path, no_torch):
    assert command("--cfg", "job", cwd=tmp_path, PYTHONPATH=no_torch).returncode == 0
    done = command("logger=csv", cwd=tmp_path, PYTHONPATH=no_torch)
    assert done.returncode == 1
    assert "torch was imported" in done.stderr


ON_RUNS = [path.stem for path in sorted(Path(CONF).glob("*.yaml")) if "  - trained\n" in path.read_text()]
METRICS = [path.stem for path in sorted((Path(CONF) / "metrics").glob("*.yaml"))]


@pytest.mark.parametrize("name", slow_but(["generate"], ON_RUNS))
def test_help_of_a_command_on_trained_runs_is_its_own_and_quick(tmp_path, no_torch, name):
    done = command("--help", module=f"vae_exp.{name}", cwd=tmp_path, PYTHONPATH=no_torch)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(help_page(name, "samples" if name == "generate" else None).replace("$$", "$"))


@pytest.mark.parametrize(
    ("name", "what"), [(name, None) for name in ON_RUNS if name != "generate"] + [("generate", what) for what in WHATS]
)
def test_help_says_every_key(name, what):
    page = help_page(name, what).splitlines()
    assert page[0].startswith(f"python -m vae_exp.{name} run=")
    assert "  logger=none                   wandb: adds the results to the run's own record there" in page
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose(name, overrides=[f"what={what}"] if what else [])
    keys = [key for key in cfg if key not in ("what", "rows", *METRICS)]
    keys += [f"{key}.{option}" for key in cfg if key in METRICS for option in cfg[key]]
    for key in keys:
        if not key.endswith((".metric", ".headline")):
            assert [line for line in page if re.match(rf"  {key}[.\w]*=", line)], key
    for other in [*METRICS] if name == "evaluate" else []:
        assert [line for line in page if line.startswith(f"  {other} ")], other
    if what:
        for other in WHATS:
            assert [line for line in page if line.startswith(f"  {other} ")], other


WRONG = [
    (["encoder=conv", "encoder.chanels=[3]"], "did you mean encoder.channels?"),
    (["latent_dim=abc"], "latent_dim=abc: a whole number is needed"),
    (["resume=/nowhere"], "/nowhere is not a run folder"),
    (["model=cvea"], "did you mean cvae?"),
    (["likelihod=bce"], "did you mean likelihood?"),
    (["+foo=3"], "nothing reads foo"),
    (["latent_dim=["], "no viable alternative"),
    (["latent_dim"], "neither a command nor key=value"),
    (["init_from=/nowhere"], "/nowhere is not a run folder"),
]


@pytest.mark.parametrize(("args", "said"), slow_but(WRONG[:3], WRONG))
def test_what_is_wrong_is_said_in_a_few_lines(tmp_path, no_torch, args, said):
    done = command(*args, "trainer=debug", "logger=none", cwd=tmp_path, PYTHONPATH=no_torch)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len((done.stdout + done.stderr).splitlines()) <= 8
    assert not list(tmp_path.rglob("*.log")), "an error before anything began leaves no folder"


WRONG_METRICS = [
    ("metrics=[elbo,elbow]", "metrics=elbow: no such option; did you mean elbo?\nmetrics is one of: ais, all,"),
    ("metrics=elbow", "metrics=elbow: no such option; did you mean elbo?\nmetrics is one of: ais, all, amortisation,"),
    ("ais.chains=3", "ais: this metric is not asked for, so nothing reads its options: choose metrics=[...,ais]"),
    ("nll=ais", "nll=ais: nll is no single value but has keys, which --cfg job shows\nBoth are metrics: "),
    ("nll.num_samples=many", "nll.num_samples=many: a whole number is needed"),
]


@pytest.mark.parametrize(("arg", "said"), slow_but(WRONG_METRICS[:1], WRONG_METRICS))
def test_wrong_metrics_and_options_are_said_in_a_few_lines(tmp_path, no_torch, arg, said):
    done = command("run=nowhere", arg, module="vae_exp.evaluate", cwd=tmp_path, PYTHONPATH=no_torch)
    assert done.returncode == 2
    assert f"error: {said}" in done.stderr
    assert len(done.stderr.splitlines()) <= 6


def test_malformed_yaml_is_an_error_of_a_few_lines(tmp_path, no_torch):
    (tmp_path / "conf" / "encoder").mkdir(parents=True)
    (tmp_path / "conf" / "encoder" / "broken.yaml").write_text("a: [1\nb: }")
    done = command("--config-dir", "conf", "encoder=broken", cwd=tmp_path, PYTHONPATH=no_torch)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 8
    assert "broken.yaml" in done.stderr


@pytest.mark.slow
def test_an_error_leaves_the_files_of_a_user_alone(tmp_path):
    (tmp_path / "mine.log").write_text("mine")
    done = command("latent_dim=abc", "hydra.run.dir=.", cwd=tmp_path)
    assert done.returncode == 2
    assert (tmp_path / "mine.log").read_text() == "mine"


TYPOS = [
    ("latnet_dim: 5\n", "nothing reads latnet_dim; did you mean latent_dim?"),
    ("trainr: {devices: 2}\n", "did you mean trainer?"),
]


@pytest.mark.parametrize(("content", "said"), slow_but(TYPOS[:1], TYPOS))
def test_a_typo_in_a_file_is_an_error_too(tmp_path, content, said):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("# @package _global_\n" + content)
    done = command("--config-dir", "conf", "experiment=mine", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.slow
def test_a_whole_trace_is_shown_on_demand(tmp_path):
    done = command("latent_dim=abc", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert "Traceback" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["model=cvae", "data=frey_face"], "Ways out: model=vae"),
        (["likelihood=bce", "data=cifar10"], "Ways out: data.binarize=dynamic"),
        (["data=mnist", "data.root=nothing_here"], "nothing_here"),
        (["trainer=gpu"], "gpu"),
        (["trainer.precision=16-true"], "choose one of 32-true, bf16-mixed"),
        (["trainer.precision=often"], "often"),
        (["encoder.out_features=8", "posterior.in_features=9"], "posterior"),
        (["init_from=/nowhere"], "/nowhere is not a run folder"),
        (["~model"], "model"),
    ],
)
def test_what_does_not_fit_is_said_in_a_few_lines(tmp_path, args, said):
    done = command("trainer=debug", "logger=none", *args, cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len((done.stdout + done.stderr).splitlines()) <= 12
    assert not list(tmp_path.rglob("*.log"))


@pytest.mark.slow
def test_train_evaluate_resume(tmp_path):
    """The whole life of a run, from the shell."""
    done = command(*PICTURED, "model=cvae", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = run_folders(tmp_path / "outputs")
    assert folder.parent.name == "cvae_fake"
    assert "pictures   " in done.stdout
    assert (folder / "train.log").read_text().count("test/elbo") == 1

    (folder.parent / "moved").mkdir()
    moved = folder.rename(folder.parent / "moved" / "run")  # a run lives in its folder, wherever that is
    done = command(f"run={moved}", "metrics=[elbo]", module="vae_exp.evaluate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    test_elbo = json.loads((moved / "run.json").read_text())["metrics"]["test/elbo"]
    assert json.loads((moved / "evaluation.json").read_text())["elbo"] == pytest.approx(test_elbo, rel=1e-6)

    done = command(f"resume={moved.relative_to(tmp_path)}", "trainer.max_epochs=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run_folders(tmp_path / "outputs") == [moved]
    assert [row["epoch"] for row in rows(moved) if row["val/elbo"]] == ["0", "1", "2"]

    for change in ("model=vae", "optimizer.lr=0.5", "latent_dim=7", "data.seed=1"):
        done = command(f"resume={moved}", change, cwd=tmp_path)
        assert done.returncode == 2
        assert "continues as it began" in done.stderr
    done = command(f"resume={moved}", "trainer.max_epochs=1", cwd=tmp_path)
    assert done.returncode == 2
    assert "is in epoch 3, set a larger number" in done.stderr
    done = command(*SMALL, f"hydra.run.dir={moved}", cwd=tmp_path)
    assert done.returncode == 2
    assert "already holds a run" in done.stderr
    done = command(f"resume={moved}", cwd=tmp_path)
    assert done.returncode == 2
    assert "trainer.max_epochs" in done.stderr


# Noise that hangs on the image, not on the process that draws it: what is left of DDP is arithmetic.
BY_IMAGE = (
    "encoder._target_=helpers.by_image.Encoder",
    "posterior._target_=helpers.by_image.Posterior",
    "posterior.in_features=11",
    "data.binarize=threshold",
    "likelihood=bce",
)


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [False, True])
def test_two_processes_compute_what_one_does(tmp_path, sweep):
    """Step by step and, in the sweep, three steps at a time: the seeds want to hear of each."""
    several = ("trainer.log_every_n_steps=3",)
    seeds = ("+callbacks.seeds._target_=helpers.callbacks.Seeds",)
    ddp = ("trainer=ddp", "trainer.devices=2", *(several if sweep else seeds))
    single = command(
        *SMALL, *BY_IMAGE, *(several if sweep else ()), "hydra.run.dir=one", cwd=tmp_path, PYTHONPATH=str(TESTS)
    )
    assert single.returncode == 0, single.stderr
    where = ("-m", "sweep.name=s") if sweep else ("hydra.run.dir=two",)
    double = command(*where, *SMALL, *BY_IMAGE, *ddp, cwd=tmp_path, PYTHONPATH=str(TESTS))
    assert double.returncode == 0, double.stderr
    (other,) = (tmp_path / "outputs" / "cells").iterdir() if sweep else [tmp_path / "two"]
    one, two = rows(tmp_path / "one"), rows(other)
    assert len(one) == len(two)
    for expected, row in zip(one, two, strict=True):
        for key in expected:
            if expected[key] and key.split("/")[-1] in ("elbo", "recon", "kl", "loss"):
                assert float(row[key]) == pytest.approx(float(expected[key]), rel=1e-5), (key, expected["step"])
    assert len(run_folders(tmp_path)) == 2
    if sweep:
        return
    # Each process draws its own noise, in every step.
    seeds = [(tmp_path / "two" / f"seeds{rank}.txt").read_text().split() for rank in (0, 1)]
    assert len(seeds[0]) == len(seeds[1]) == 6
    assert len(set(seeds[0]) | set(seeds[1])) == 12


@pytest.mark.slow
def test_two_processes_fail_in_a_few_lines(tmp_path):
    failing = ("trainer=ddp", "trainer.devices=2", "optimizer.lr=1e30")
    done = command(*SMALL, *failing, cwd=tmp_path)
    assert done.returncode == 2
    assert "recon is" in done.stderr
    assert "Traceback" not in done.stderr
    done = command(*SMALL, *failing, "data.batch_size=15", cwd=tmp_path)
    assert done.returncode == 2
    assert "data.batch_size=15 cannot be divided evenly among 2 processes" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("how", "code"), [("Terminate", 143), ("Interrupt", 130)])
def test_a_run_that_is_stopped_says_so_and_can_be_resumed(tmp_path, how, code):
    """To the same numbers, wherever in a step the signal arrives."""
    stop = f"+callbacks.stop._target_=helpers.callbacks.{how}"
    done = command(*SMALL, stop, "hydra.run.dir=run", cwd=tmp_path, PYTHONPATH=str(TESTS))
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
    done = command("resume=run", "+callbacks.stop=null", cwd=tmp_path, PYTHONPATH=str(TESTS))
    assert done.returncode == 0, done.stderr
    whole = command(*SMALL, "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0
    curves = [
        [(row["step"], row["train/elbo"], row["val/elbo"]) for row in rows(tmp_path / run)] for run in ("run", "whole")
    ]
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_a_wheel_carries_its_conf_and_trains_from_anywhere(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    assert (tmp_path / "site" / "vae_exp" / "py.typed").exists()
    elsewhere = tmp_path / "a folder"
    elsewhere.mkdir()
    done = command(*SMALL, "report=true", cwd=elsewhere, PYTHONPATH=str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    (folder,) = run_folders(elsewhere)
    assert (folder / "report.html").exists()
    assert json.loads((folder / "run.json").read_text())["starts"][0]["git"] is None, "it ran from the wheel"


@pytest.mark.parametrize(
    "text", ["outputs/run_1", "my run", "it's", 'a"b', "$HOME", "a,b", "[1]", "a=b", "back\\slash", "ü", "`x`"]
)
def test_what_is_printed_can_be_pasted(text):
    """A shell takes the quotes off, and Hydra reads the text that was meant."""
    (word,) = shlex.split(override("name", text))
    (parsed,) = OverridesParser.create().parse_overrides([word])
    assert parsed.key_or_group == "name"
    assert parsed.value() == text


@pytest.mark.parametrize(
    "form",
    [
        ["--config-dir", "mine"],
        pytest.param(["-cd", "mine"], marks=pytest.mark.slow),
        pytest.param(["--config-dir=mine"], marks=pytest.mark.slow),
    ],
)
def test_a_file_of_the_users_own_is_read_in_place_of_ours(form, tmp_path):
    (tmp_path / "mine" / "likelihood").mkdir(parents=True)
    (tmp_path / "mine" / "likelihood" / "laplace.yaml").write_text("_target_: my_parts.Mine\n")
    done = command(*form, "likelihood=laplace", "--cfg", "job", "--package", "likelihood", cwd=tmp_path)
    assert done.stdout.splitlines()[1:] == ["_target_: my_parts.Mine"], done.stderr
    done = command("hydra.searchpath=[file://mine]", "likelihood=laplace", cwd=tmp_path)
    assert done.returncode == 2
    assert "mine/likelihood/laplace.yaml: vae_exp has a file of this name" in done.stderr


@pytest.mark.slow
def test_the_commands_are_subcommands_too(tmp_path):
    version = command("--version", cwd=tmp_path).stdout
    assert version == f"vae_exp {vae_exp.__version__}\n"
    for name in ON_RUNS:
        assert (
            command(name, "--help", cwd=tmp_path).stdout
            == command("--help", module=f"vae_exp.{name}", cwd=tmp_path).stdout
        )
    assert command("train", "--help", cwd=tmp_path).stdout == command("--help", cwd=tmp_path).stdout
    done = command("evalute", "run=x", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: evalute: neither a command nor key=value; did you mean evaluate?")


@pytest.mark.parametrize("folder", ["/dev/null/x", "/proc/x"])
@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_named_with_its_key(folder, tmp_path):
    done = command(f"hydra.run.dir={folder}", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) <= 6
    assert folder in done.stderr
    assert "hydra.run.dir=" in done.stderr


SLURM = {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}


@pytest.mark.slow
def test_a_shell_within_a_slurm_job_trains_on_its_one_device(tmp_path):
    done = command(*SMALL, **SLURM, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(run_folders(tmp_path)) == 1


@pytest.mark.slow
def test_a_task_too_many_of_slurm_is_refused(tmp_path):
    done = command(*SMALL, **SLURM | {"SLURM_PROCID": "1"}, cwd=tmp_path)
    assert done.returncode == 2
    assert "trainer.devices=4" in done.stderr


@pytest.mark.slow
def test_the_last_words_can_be_pasted_and_run(tmp_path):
    done = command(*SMALL, "name='my run'", "trainer.enable_progress_bar=true", cwd=tmp_path)
    assert len(re.findall("^epoch", done.stdout, re.MULTILINE)) == 2  # a line an epoch where there is no terminal
    assert "\r" not in done.stderr
    (following,) = re.findall("^next +(.*)", done.stdout, re.MULTILINE)
    python, _, module, *args = shlex.split(following)
    assert python == sys.executable
    done = command(*args, "metrics=[elbo]", module=module, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = command(*SMALL, "+trainer.fast_dev_run=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "next" not in done.stdout


@pytest.mark.parametrize(("word", "is_kept"), [("seed=3", True), ("logger=none", True), ("latent_dim=2", False)])
def test_a_number_is_expected_of_the_experiment_as_it_is_alone(word, is_kept):
    assert _is_as_expected(word) == is_kept


NO_OPTION = [
    ("model=null", "vae_exp", "model=null: no such option\nmodel is one of: ae, beta_vae,"),
    ("logger=null", "vae_exp", "logger=null: no such option; did you mean none?\nlogger is one of: csv, mlflow, none,"),
    ("data=fake,null", "vae_exp", "data=fake,null: no such option\ndata is one of: "),
    (
        "experiment=null",
        "vae_exp",
        "experiment=null: no such option\nexperiment is one of: aevb_figure2, ",
    ),
    ("+schedule@optimizer.lr=3", "vae_exp", "+schedule@optimizer.lr=3: no such option\nschedule is one of: constant"),
    ("metrics=[elbo,null]", "vae_exp.evaluate", "metrics=[elbo,null]: no such option\nmetrics is one of: ais, all,"),
    ("what=null", "vae_exp.generate", "what=null: no such option\nwhat is one of: anomalies,"),
    ("run=null", "vae_exp.report", "run=null: give a run folder, a pattern for several, or a list of these"),
    ("run=", "vae_exp.export", "run=: give a run folder, a pattern for several, or a list of these"),
]


@pytest.mark.parametrize(("word", "module", "said"), slow_but(NO_OPTION[:1] + NO_OPTION[7:8], NO_OPTION))
def test_null_is_no_option_and_no_run(tmp_path, no_torch, word, module, said):
    done = command(word, module=module, cwd=tmp_path, PYTHONPATH=no_torch)
    assert done.returncode == 2
    assert f"error: {said}" in done.stderr
    assert len(done.stderr.splitlines()) <= 4


@pytest.mark.parametrize("word", ["model=vae,cvae", "metrics=[elbo],[nll]", "model='3'", "model=glob(*)", "name=null"])
def test_names_of_options_are_left_to_hydra(word):
    check_choices([word, "run=x"], "train")


@pytest.mark.parametrize(
    ("name", "words"), [("train", []), ("train", ["logger=mlflow"]), ("evaluate", ["logger=wandb"]), ("generate", [])]
)
def test_a_config_can_be_shown_resolved(name, words):
    """What --cfg job --resolve does."""
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose(name, overrides=["run=x", *words][name == "train" :], return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    OmegaConf.resolve(cfg)
    if name == "train" and not words:
        assert cfg.logger.wandb.tags == []  # nothing was chosen


OF_OWN_METRIC = [
    (["metrics=[elbo,elbow]"], "metrics is one of: ais, all, amortisation, clusters, elbo, factors, hmc, labels"),
    (["mine.num=4"], "mine: this metric is not asked for, so nothing reads its options: choose metrics=[...,mine]"),
    (["nll=mine"], "Both are metrics: choose metrics=[nll,mine]"),
    (["metrics=mine", "mine.nun=4"], "did you mean mine.num?"),
]


@pytest.mark.parametrize(("words", "said"), slow_but(OF_OWN_METRIC[:1], OF_OWN_METRIC))
def test_a_metric_of_the_users_own_is_named_in_errors(tmp_path, no_torch, words, said):
    own_metric(tmp_path)
    done = command(
        "--config-dir", "conf", "run=x", *words, module="vae_exp.evaluate", cwd=tmp_path, PYTHONPATH=no_torch
    )
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.slow
def test_a_metric_of_the_users_own_is_named_in_the_help(tmp_path, no_torch):
    own_metric(tmp_path)
    done = command("--config-dir", "conf", "--help", module="vae_exp.evaluate", cwd=tmp_path, PYTHONPATH=no_torch)
    assert re.search(r"^  mine +Counts\.$", done.stdout, re.MULTILINE)
    assert re.search(r"^  mine\.num=3 +how many$", done.stdout, re.MULTILINE)


def own_metric(folder: Path) -> None:
    (folder / "conf" / "metrics").mkdir(parents=True)
    content = "# @package mine\n# Counts.\nmetric: my_metrics.mine\nnum: 3 # how many\n"
    (folder / "conf" / "metrics" / "mine.yaml").write_text(content)


def test_arguments_of_an_agent_of_wandb_are_overrides_and_options_of_hydra_stay():
    from vae_exp.words import of_agent

    typed = ["--latent_dim=4", "--model=cvae", "--optimizer.lr=1e-3", "--data.image_shape=[1,8,8]", "seed=1"]
    assert of_agent(typed) == [word.removeprefix("--") for word in typed]
    options = ["--cfg=job", "--cfg", "job", "--config-dir=mine", "--config-name=x", "--info=all", "--multirun", "-m"]
    options += ["--package=_global_", "--experimental-rerun=x", "--help", "+a=--b=c", "name=--x=1"]
    assert of_agent(options) == options
