"""python -m vae_exp.evaluate: errors that are what they say, a file that loses nothing, several runs at once."""

import json
import math
import re

import pytest
import torch
from helpers.runs import command, composed_on, evaluated, wandb_records

from vae_exp.cli import exit_code
from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.metrics.elbo import elbo, train_gap
from vae_exp.metrics.score import chosen, score_runs
from vae_exp.page.write import write_page
from vae_exp.runs.trained import restore

BITS = ("data.binarize=static", "likelihood=bce")


def written(folder, name="evaluation.json"):
    return json.loads((folder / name).read_text())


@torch.no_grad()
def test_the_errors_of_the_elbo_are_those_of_a_mean_over_images_and_of_a_mean_over_draws(run):
    folder, _ = run("data.source.size=600")
    numbers = evaluated(folder, "metrics=[elbo]")
    trained = restore(folder, accelerator="cpu")
    x, y = trained.images(600)
    draw = trained.model.draw(x, y, 1000)
    each = draw.log_px - draw.kl
    # Of one draw an image: the images' own variance and that of the draws.
    per_image = each.mean(0).var() + each.var(0).mean()
    assert numbers["elbo_se_images"] == pytest.approx(float(per_image / 600) ** 0.5, rel=0.1)
    assert numbers["elbo_se_draws"] == pytest.approx(float(each.var(0).mean() / 600) ** 0.5, rel=0.1)
    assert numbers["recon_se_draws"] == pytest.approx(numbers["elbo_se_draws"])
    assert numbers["kl_se_draws"] == 0  # a closed form
    assert abs(numbers["elbo"] - float(each.mean())) < 4 * numbers["elbo_se_draws"]


def test_a_kl_by_monte_carlo_has_an_error_over_draws(run):
    assert evaluated(run("posterior=flow")[0], "metrics=[elbo]")["kl_se_draws"] > 0


def test_the_nll_is_below_the_bounds_of_fewer_latents_and_within_its_error_of_another_seed(run):
    folder, _ = run(*BITS)
    one, other = (evaluated(folder, "metrics=[nll]", "num_samples=1000", f"seed={seed}") for seed in (0, 1))
    curve = [one["nll_curve"][size] for size in (1, 10, 100, 1000)]
    assert curve == sorted(curve, reverse=True)
    assert one["nll"] == curve[-1]
    assert one["nll"] != other["nll"]
    error = math.hypot(one["nll_se_draws"], other["nll_se_draws"])
    assert abs(one["nll"] - other["nll"]) < 4 * error
    again = evaluated(folder, "metrics=[nll]", "num_samples=1000")
    assert again == one


@pytest.mark.parametrize(
    ("options", "bits"),
    [
        (BITS, lambda nats: nats / (64 * math.log(2))),
        (("likelihood=discretized_logistic",), lambda nats: nats / (64 * math.log(2))),
        (("likelihood=sse", "data.dequantize=true"), lambda nats: nats / (64 * math.log(2)) + 8),
        (("likelihood=sse",), "no bound: data.dequantize=true"),
        (("likelihood=bce", "likelihood.allow_grey=true"), "not a probability"),
    ],
    ids=["bits", "levels", "dequantised", "density of levels", "grey bce"],
)
def test_bits_per_dim_where_they_are_defined(run, options, bits):
    numbers = evaluated(run(*options)[0], "metrics=[nll]", "num_samples=10")
    if callable(bits):
        assert numbers["bits_per_dim"] == pytest.approx(bits(numbers["nll"]))
    else:
        assert numbers["bits_per_dim"] is None
        assert bits in numbers["bits_per_dim_refused"]


def test_the_file_keeps_other_metrics_of_the_same_weights_and_none_of_others(run):
    folder, _ = run()
    elbo = evaluated(folder, "metrics=[elbo]")["elbo"]
    evaluated(folder, "metrics=[nll]", "num_samples=10")
    both = written(folder)
    assert both["elbo"] == elbo
    assert "nll" in both
    assert both["num_images"] == 64
    evaluated(folder, "metrics=[nll]", "num_samples=10", "checkpoint=last", "split=val")
    assert written(folder) == both
    assert "elbo" not in written(folder, "evaluation_val.json")
    state = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    state["state_dict"][
        "decoder.net.0.bias" if "decoder.net.0.bias" in state["state_dict"] else "posterior.mu.bias"
    ] += 1
    torch.save(state, folder / "checkpoints" / "best.ckpt")
    evaluated(folder, "metrics=[nll]", "num_samples=10")
    assert "elbo" not in written(folder)


def test_what_has_no_meaning_is_left_out_with_its_reason_or_refused_by_name(run):
    folder, _ = run("model=ae")
    numbers = evaluated(folder)
    assert "nll" not in numbers
    assert "autoencoder has no density" in written(folder)["refused"]["nll"]
    with pytest.raises(NoMeaningError, match="autoencoder has no density"):
        evaluated(folder, "metrics=[nll]")
    for options, said in (
        ("split=tset", "split=tset: choose one of test, val, train"),
        ("logger=csv", "logger: choose none, or wandb"),
        ("run=nowhere", "nowhere is not a run folder"),
        ("run='nowhere/*'", "no run folder has such a name"),
    ):
        with pytest.raises(ConfigError, match=said):
            evaluated(folder, "metrics=[nll]", options)


@pytest.mark.parametrize(
    ("option", "least"),
    [
        ("num_samples=0", 1),
        ("ais.chains=1", 2),
        ("ais.leapfrog=0", 1),
        ("latents.num_latents=1", 2),
        ("amortisation.num_images=1", 2),
        ("labels.neighbours=-1", 1),
        ("labels.neighbours=null", 1),
        ("quality.num_images=3", 10),
        ("factors.num_images=0", 1),
        ("latents.threshold=-0.1", 0),
        ("amortisation.lr=-1", 0),
        ("amortisation.lr=null", 0),
    ],
)
def test_options_out_of_range_are_refused_before_a_run_is_read(tmp_path, option, least):
    """Of metrics whose turn comes last, too."""
    with pytest.raises(ConfigError, match=f"{option}: at least {least} is needed"):
        evaluated(tmp_path / "nowhere", "metrics=[all,ais]", option)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("amortisation.lr=0", "amortisation.lr=0: nothing would be refined"),
        ("quality.sampler=maf", "quality.sampler=maf: choose one of prior, gmm, flow"),
        ("quality.inception=nowhere", "quality.inception=nowhere: there is no such file"),
        ("+factors.colour=red", "factors: .*unexpected keyword argument 'colour'"),
        ("~nll.num_samples", "nll: .*missing 1 required positional argument: 'num_samples'"),
        ("factors.metric=my_metrics.nowhere", "factors: .*my_metrics"),
        ("metrics=[]", "nothing to compute, choose all"),
    ],
)
def test_options_that_are_no_use_are_named_before_a_run_is_read(tmp_path, option, said):
    with pytest.raises(ConfigError, match=said):
        evaluated(tmp_path / "nowhere", option)


def test_a_metric_alone_and_a_list_of_them_give_the_same_numbers(run):
    folder, _ = run()
    assert list(chosen(composed_on(folder, "evaluate", "metrics=[nll,elbo]"))) == ["nll", "elbo"]
    assert evaluated(folder, "metrics=nll", "nll.num_samples=3") == evaluated(folder, "metrics=[nll]", "num_samples=3")
    assert written(folder)["settings"]["nll"] == {"seed": 0, "num_samples": 3}


MINE = """
def spread(trained, num_images, times):
    if times < 0:
        raise ValueError(f"times={times}: it would turn the spread around")
    x, _ = trained.images(num_images)
    return {"spread": times * float(x.std()), "spread_images": len(x)}
"""

YAML = """# @package spread
metric: my_metrics.spread
headline: {spread: grey levels}
num_images: 10
times: 255
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A user's own metric: a file of Python and one of yaml, in the folder that the commands are typed in."""
    (tmp_path / "my_metrics.py").write_text(MINE)
    (tmp_path / "my_conf" / "metrics").mkdir(parents=True)
    content = (
        "# @package spread\nmetric: my_metrics.spread\nheadline: {spread: grey levels}\nnum_images: 10\ntimes: 255\n"
    )
    (tmp_path / "my_conf" / "metrics" / "spread.yaml").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    return f"hydra.searchpath=['file://{tmp_path}/my_conf']"


def test_a_metric_of_the_users_own(run, mine):
    folder, _ = run("data.val_size=16")
    x, _ = restore(folder, accelerator="cpu").images(10)
    numbers = evaluated(folder, mine, "metrics=[elbo,spread]", "spread.times=2")
    assert numbers["spread"] == pytest.approx(2 * float(x.std()))
    assert numbers["spread_images"] == 10
    content = written(folder)
    assert content["spread"] == numbers["spread"]
    assert content["settings"]["spread"] == {"seed": 0, "num_images": 10, "times": 2}
    assert f"spread (test) {numbers['spread']:.3f} grey levels" in " ".join(
        re.sub(r"<[^>]+>", " ", write_page(folder).read_text()).split()
    )
    with pytest.raises(ConfigError, match=r"spread\.times=-1: it would turn the spread around"):
        evaluated(folder.parent / "nowhere", mine, "metrics=[all,spread]", "spread.times=-1")


def test_a_threshold_may_be_0(run):
    """A whole number in the place of a real one is not a count: every unit that varies at all is then active."""
    assert evaluated(run()[0], "metrics=[latents]", "latents.threshold=0", "num_samples=2")["active_units"] == 3


@pytest.mark.slow
def test_several_runs_are_one_row_each_and_one_that_fails_stops_no_other(run, tmp_path):
    folders = [run(f"seed={seed}", folder=f"runs/{seed}")[0] for seed in (0, 1, 2)]
    (folders[1] / "checkpoints" / "best.ckpt").unlink()
    done = command("run=runs/*", "metrics=[elbo]", module="vae_exp.evaluate", cwd=tmp_path)
    assert done.returncode == 2
    assert "1 of 3 runs failed" in done.stderr
    assert "runs/1 has no checkpoints/best.ckpt" in done.stderr
    assert "Traceback" not in done.stderr
    assert [(folder / "evaluation.json").exists() for folder in folders] == [True, False, True]
    folders[1].rename(tmp_path / "elsewhere")
    done = command("run=runs/?", "metrics=[elbo]", "logger=wandb", module="vae_exp.evaluate", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()[-3:]
    assert header.split()[:2] == ["run", "test/elbo"]
    for row, folder in zip(rows, (folders[0], folders[2]), strict=True):
        assert row.split()[:2] == [f"runs/{folder.name}", f"{written(folder)['elbo']:.3f}"]
        records = wandb_records(folder)
        (started,) = (record["run"] for record in records if record["type"] == "run")
        assert started["run_id"] == json.loads((folder / "run.json").read_text())["run_id"]
        summary = {k: v for r in records if r["type"] == "summary" for k, v in r["summary"].get("update", {}).items()}
        assert summary["test/elbo"] == pytest.approx(written(folder)["elbo"])


def printed(caplog):
    """The tables that were logged: lines of names by their title, up to the verdicts."""
    tables, lines = {}, [record.getMessage() for record in caplog.records]
    for line in lines[max(i for i, line in enumerate(lines) if line.startswith("written to")) + 2 :]:
        if "checksum" in line:
            tables[line] = []
        else:
            tables[list(tables)[-1]].append(line.split("  "))
    return tables


@pytest.mark.slow
def test_numbers_of_another_bound_or_of_other_images_stand_in_another_table(run, tmp_path, caplog):
    caplog.set_level("INFO", logger="vae_exp")
    kinds = {
        "a": (), "b": ("seed=1",), "cvae": ("model=cvae",), "bits": BITS, "few": ("data.source.size=32",),
        "other": ("data.seed=1",), "ae": ("model=ae",),
    }  # fmt: skip
    for name, options in kinds.items():
        run(*options, "trainer.max_epochs=1", folder=f"runs/{name}")
    score_runs(composed_on(tmp_path / "runs" / "*", "evaluate", "metrics=elbo"))
    tables = printed(caplog)
    rows = [[line[0].rpartition("/")[2] for line in lines[1:]] for lines in tables.values()]
    assert sorted(rows) == [["a", "b"], ["ae"], ["bits"], ["cvae"], ["few"], ["other"]]
    titles = {row[0]: title for row, title in zip(rows, tables, strict=True)}
    assert titles["a"].startswith("log p(x), a density; 64 test images, 256 levels, checksum ")
    assert titles["cvae"].startswith("log p(x|y), a density; 64 test images")
    assert titles["bits"].startswith("log p(x), a mass; 64 test images, bits, static")
    assert titles["few"].startswith("log p(x), a density; 32 test images")
    assert titles["ae"].startswith("no density, no bound; 64 test images")


def test_bounds_of_other_numbers_of_latents_stand_in_other_columns(run, tmp_path, caplog):
    caplog.set_level("INFO", logger="vae_exp")
    for name, objective in (("a", "iwae objective.num_samples=2"), ("b", "iwae objective.num_samples=6"),
                            ("c", "piwae objective.num_samples=2 objective.num_groups=3")):  # fmt: skip
        run(*f"objective={objective}".split(), "trainer.max_epochs=1", folder=f"runs/{name}")
    score_runs(composed_on(tmp_path / "runs" / "*", "evaluate", "metrics=[elbo,nll]", "num_samples=7"))
    ((header, *_),) = printed(caplog).values()
    names = [name.strip() for name in header if name.strip()]
    assert {"test/elbo", "test/recon", "test/kl", "test/iwae(K=2)", "test/iwae(K=6)", "test/nll(K=7)"} <= set(names)
    assert not {"test/iwae", "test/nll", "test/loss"} & set(names)


def test_a_list_of_runs_and_patterns_scores_each_once(run, tmp_path):
    folders = [run("trainer.max_epochs=1", folder=f"runs/{name}")[0] for name in ("a", "b")]
    cfg = composed_on(folders[0], "evaluate", "metrics=elbo")
    cfg.run = [str(folders[1]), f"{tmp_path}/runs/*"]
    assert list(score_runs(cfg)) == [folders[1], folders[0]]
    with pytest.raises(ConfigError, match="give a run folder"):
        evaluated(folders[0], "run=[]")


def _only_the_first(trained):
    trained.setup("test")
    first = torch.arange(trained.num_images()) == 0
    trained.data.splits["test"] = trained.data.splits["test"].only(first)
    return trained


@pytest.mark.parametrize("model", ["vae", "ae"])
def test_of_one_image_there_is_no_error_over_images_and_no_nan(run, model):
    trained = _only_the_first(restore(run(f"model={model}")[0], accelerator="cpu", progress=False))
    name = "elbo" if model == "vae" else "recon"
    numbers = elbo(trained)
    assert numbers[f"{name}_se_images"] is None
    assert model == "ae" or numbers["elbo_se_draws"] > 0
    gap = train_gap(trained)
    assert gap[f"{name}_gap_se_images"] is None
    assert math.isfinite(gap[f"{name}_gap"])


def test_interrupted_it_leaves_without_a_stack_trace(capsys, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # `report` sets it, and commands of later tests would inherit it

    def stopped():
        raise KeyboardInterrupt

    assert exit_code(stopped, "evaluate") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_what_has_no_meaning_is_named_only_where_it_was_asked_for(run, caplog):
    folder, _ = run()
    evaluated(folder, "metrics=[elbo]")
    path = folder / "evaluation.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "refused": {"factors": "not known"}}))
    evaluated(folder, "metrics=[elbo]")
    assert json.loads(path.read_text())["refused"] == {"factors": "not known"}
    assert "no factors" not in caplog.text
