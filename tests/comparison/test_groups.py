"""Sections, groups and their names, on folders whose numbers are known."""

import pytest
from helpers.folders import write_run
from scipy import stats

from vae_exp.comparison.groups import sections
from vae_exp.comparison.read import read_runs
from vae_exp.config import ConfigError


def compared(folder, by=(), rank=None):
    return sections(read_runs([str(folder)])[0], by, rank)[0]


def beta(value):
    return {"model._target_": "vae_exp.models.BetaVAE", "objective.beta": value}


@pytest.fixture
def sweep(tmp_path):
    """Two models by three seeds, and one of them with two betas."""
    for seed in range(3):
        write_run(tmp_path / f"vae{seed}", seed, -100.0 - seed)
        for value, elbo in ((4, -110.0), (8, -120.0)):
            folder = tmp_path / f"beta{value}_{seed}"
            choices = {"model": "beta_vae", "objective": "beta_elbo"}
            write_run(folder, seed, elbo + 0.1 * seed, choices=choices, config=beta(value))
    return tmp_path


def test_groups_are_told_apart_by_choices_and_then_by_what_differs(sweep):
    (section,) = compared(sweep)
    assert section.keys == ["model", "objective.beta"]
    assert [section.name(group) for group in section.groups] == ["vae", "beta_vae, beta=4", "beta_vae, beta=8"]
    assert [[run.seed for run in group.runs] for group in section.groups] == [[0, 1, 2]] * 3
    assert section.why == ""
    assert (section.metric, section.notes) == ("test/elbo", [])


def test_by_comes_first_and_no_group_mixes_configs(sweep):
    (section,) = compared(sweep, by=["objective"])
    assert section.keys == ["objective", "objective.beta"] or section.keys[0] == "objective"
    assert sorted(len(group.runs) for group in section.groups) == [3, 3, 3]
    (section,) = compared(sweep, by=["seed"])
    assert section.keys[0] == "seed"
    assert [len(group.runs) for group in section.groups] == [1] * 9


def test_the_best_comes_first_in_the_direction_of_the_metric(sweep):
    (section,) = compared(sweep)
    means = [group.interval("test/elbo").mean for group in section.groups]
    assert means == pytest.approx([-101, -109.9, -119.9])
    (section,) = compared(sweep, rank="test/recon")
    means = [group.interval("test/recon").mean for group in section.groups]
    assert means == sorted(means)
    assert section.metrics[0] == "test/recon"


def test_differences_are_paired_by_seed(sweep):
    (section,) = compared(sweep)
    best, second, _ = section.groups
    found = section.difference(second)
    paired = stats.ttest_rel([-110.0, -109.9, -109.8], [-100.0, -101.0, -102.0])
    low, high = paired.confidence_interval(0.95)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert section.difference(best) is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"bound": {"of": "log p(x|y)"}}, "bound: log p(x|y), a mass in place of log p(x), a mass"),
        ({"bound": {"kind": "density"}}, "bound: log p(x), a density in place of log p(x), a mass"),
        ({"bound": {"is_bound": False}}, "bound: a score that is no bound on log p(x) in place of log p(x), a mass"),
        ({"bound": {"representation": "256 levels"}}, "pixels: 256 levels in place of bits, dynamic"),
        ({"data": {"test": "dddd"}}, "test images: dddd in place of cccc"),
        ({"data": {"val": "dddd"}}, "validation images: dddd in place of bbbb"),
    ],
)
def test_what_does_not_compare_is_in_another_section_which_says_why(sweep, changes, why):
    write_run(sweep / "other", elbo=-1.0, **changes)
    first, second = compared(sweep)
    assert [len(group.runs) for group in first.groups] == [3, 3, 3]
    assert [len(group.runs) for group in second.groups] == [1]
    assert second.why == why


def test_runs_on_fewer_training_images_compare_and_the_section_says_so(sweep):
    write_run(sweep / "few", config={"data.train_size": 100}, data={"train": "eeee"})
    (section,) = compared(sweep)
    assert "The training images differ between runs" in section.notes[0]
    assert "train_size=100" in "; ".join(map(section.name, section.groups))


def test_what_changes_no_number_makes_no_group(tmp_path):
    idle = {"data.root": "/elsewhere", "logger.csv.save_dir": "x", "callbacks.pictures.title": "t", "report": True}
    write_run(tmp_path / "a", 0, choices={"logger": "wandb"})
    write_run(tmp_path / "b", 1, choices={"logger": "csv", "experiment": "mine"}, config=idle)
    write_run(tmp_path / "c", 2, config={"latent_dim": 20.0})  # 20 and 20.0 are one number
    (section,) = compared(tmp_path)
    assert [len(group.runs) for group in section.groups] == [3]
    assert section.name(section.groups[0]) == "all runs"


def test_the_same_run_again_is_no_further_seed(tmp_path):
    write_run(tmp_path / "a", 0, starts=[{"time": "2026-01-02", "argv": []}])
    write_run(tmp_path / "b", 0, starts=[{"time": "2026-01-01", "argv": []}])
    runs, _ = read_runs([str(tmp_path)])
    (section,), repeats = sections(runs, [], None)
    assert [run.folder.name for run in section.groups[0].runs] == ["a"]
    assert list(repeats) == [tmp_path / "b"]
    assert "the same config and seed again" in repeats[tmp_path / "b"]


def test_runs_that_did_not_record_their_choices_are_named_by_classes(tmp_path):
    write_run(tmp_path / "a", choices={}, starts=[{"argv": ["vae_exp", "model=vae"]}])
    write_run(tmp_path / "b", choices={}, config={"model._target_": "vae_exp.models.CVAE"})
    write_run(tmp_path / "c", choices={"model": "hvae"}, config={"model._target_": "vae_exp.models.HVAE"})
    (section,) = compared(tmp_path, by=["model"])
    assert section.keys == ["model"]
    assert sorted(map(section.name, section.groups)) == ["CVAE", "HVAE", "VAE"]
    assert section.notes == ["2 of 3 runs recorded no choices, so classes name the groups."]


def test_runs_of_several_versions_of_the_code_compare_and_the_section_says_so(tmp_path):
    for seed, commit in enumerate("aab"):
        starts = [{"argv": [], "git": {"commit": commit * 40}}]
        write_run(tmp_path / f"{seed}", seed, starts=starts)
    (section,) = compared(tmp_path)
    assert section.notes == ["Trained by 2 versions of the code: aaaaaaaa, bbbbbbbb."]


def test_what_was_typed_and_differs_without_a_name_is_told(tmp_path):
    write_run(tmp_path / "a", config={"encoder.hidden": [8]}, overrides=["latent_dim=2", "encoder.hidden=[8]"])
    config = {"encoder.hidden": [16], "latent_dim": 2}
    write_run(tmp_path / "b", config=config, overrides=["latent_dim=2", "encoder.hidden=[16]"])
    (section,) = compared(tmp_path)
    assert section.keys == ["latent_dim"]
    assert section.notes == ["These groups also differ in encoder.hidden."]


def test_keys_that_end_alike_keep_their_nodes(tmp_path):
    for name, encoder, decoder in (("a", 8, 8), ("b", 8, 16), ("c", 16, 8)):
        write_run(tmp_path / name, config={"encoder.width": encoder, "decoder.width": decoder})
    (section,) = compared(tmp_path)
    assert {"encoder.width=8, decoder.width=16"} < set(map(section.name, section.groups))


def test_an_autoencoder_is_ranked_by_recon(tmp_path):
    for name, recon in (("a", 90.0), ("b", 80.0)):
        rows = [{"step": 9, "val/recon": recon}]
        metrics = {"test/recon": recon, "best/val/recon": recon}
        config = {"latent_dim": recon, "monitor": "val/recon"}
        write_run(tmp_path / name, config=config, rows=rows, metrics=metrics, bound={"of": None})
    (section,) = compared(tmp_path)
    assert section.metric == "test/recon"
    assert [group.runs[0].folder.name for group in section.groups] == ["b", "a"]


def test_bounds_of_different_latents_are_different_metrics(tmp_path):
    target = {"objective._target_": "vae_exp.objectives.IWAE"}
    for name, samples in (("a", 5), ("b", 50)):
        config = target | {"objective.num_samples": samples}
        write_run(tmp_path / name, config=config, more={"test/iwae": -90.0})
    (section,) = compared(tmp_path)
    assert {"test/iwae(K=5)", "test/iwae(K=50)"} <= set(section.metrics)
    with pytest.raises(ConfigError, match="several metrics are this"):
        compared(tmp_path, rank="test/iwae")
    (section,) = compared(tmp_path, rank="test/iwae(K=5)")
    assert [group.runs[0].folder.name for group in section.groups] == ["a", "b"]


def test_unknown_words_are_refused(sweep):
    with pytest.raises(ConfigError, match=r"by=latent_dm: no run has this key; did you mean latent_dim\?"):
        compared(sweep, by=["latent_dm"])
    with pytest.raises(ConfigError, match=r"rank=test/nll: no run has this. There are test/elbo"):
        compared(sweep, rank="test/nll")


def of_folds(folder, name, elbos, folds=None, **config):
    """Runs of one seed, each on a fold of its own, so with other images and checksums."""
    for fold, elbo in zip(folds or range(len(elbos)), elbos, strict=True):
        sums = {"val": f"v{fold}", "test": f"t{fold}", "train": f"r{fold}"}
        choices = {"model": name}
        of = {"data.folds": 3, "data.fold": fold, "model._target_": f"vae_exp.models.{name}", **config}
        write_run(folder / f"{name}{fold}", 0, elbo, choices=choices, config=of, data=sums, folded="3 folds of abcd")


def test_folds_are_as_seeds(tmp_path):
    of_folds(tmp_path, "vae", [-90.0, -100.0, -110.0])
    of_folds(tmp_path, "cvae", [-91.0, -100.5, -111.5])
    (section,) = compared(tmp_path)
    assert [section.name(group) for group in section.groups] == ["vae", "cvae"]
    found = section.groups[0].interval("test/elbo")
    low, high = stats.t.interval(0.95, 2, loc=-100, scale=stats.sem([-90, -100, -110]))
    assert (found.mean - found.half, found.mean + found.half, found.n) == pytest.approx((low, high, 3))
    paired = stats.ttest_rel([-91.0, -100.5, -111.5], [-90.0, -100.0, -110.0]).confidence_interval(0.95)
    difference = section.difference(section.groups[1])
    assert (difference.mean - difference.half, difference.mean + difference.half) == pytest.approx(tuple(paired))
    assert "images of its own" in " ".join(section.notes)
    assert not any("training images differ" in note for note in section.notes)
    assert "test folds 0, 1, 2 (3 folds of abcd)" in section.title


def test_a_fold_is_never_ranked_against_another(tmp_path):
    of_folds(tmp_path, "vae", [-90.0, -100.0, -110.0])
    of_folds(tmp_path, "cvae", [-50.0], folds=[1])
    of_folds(tmp_path, "hvae", [-40.0], folds=[2])
    write_run(tmp_path / "other", 0, -10.0)
    assert [len(section.groups) for section in compared(tmp_path)] == [1, 1, 1, 1]
