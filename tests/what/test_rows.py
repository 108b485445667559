"""What a model of a table is used for: rows as CSV, missing entries filled in, strange rows named."""

import csv

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.runs import composed, generated
from scipy import stats
from torch import nn

from vae_exp.columns import columns_of
from vae_exp.config import ConfigError, NoMeaningError
from vae_exp.decoders import MLP
from vae_exp.likelihoods import Columns
from vae_exp.models import VAE
from vae_exp.objectives import ELBO
from vae_exp.posteriors import DiagonalNormal
from vae_exp.priors import StandardNormal
from vae_exp.training.job import train
from vae_exp.what.impute import fill

SMALL = (
    "data=table", "encoder.hidden=[16]", "decoder.hidden=[16]", "data.batch_size=32", "latent_dim=2", "trainer=cpu",
    "logger=csv", "trainer.max_epochs=3", "trainer.enable_progress_bar=false", "report=false",
)  # fmt: skip


class Nothing(nn.Module):
    """An encoder that sees nothing, so that the posterior is the prior."""

    reads_missing = True

    def forward(self, x, c):
        return torch.zeros(len(x), 1)


def linear_gaussian(weight, bias, noise):
    """A VAE that is p(x) = N(bias, W W' + noise^2), whose proposal is the prior."""
    columns = [{"name": str(d), "kind": "real", "missing": True} for d in range(len(bias))]
    decoder = MLP(2, [1, 1, len(bias)], params_per_pixel=2, hidden=[], activation="Identity")
    share = np.log(noise / 0.01) / np.log(1e4)
    (layer,) = decoder.layers
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(np.concatenate([weight, np.zeros_like(weight)])))
        layer.bias.copy_(torch.tensor(np.concatenate([bias, np.full(len(bias), np.log(share / (1 - share)))])))
    posterior = DiagonalNormal(1, 2)
    for parameter in posterior.parameters():
        nn.init.zeros_(parameter)
    return VAE(Nothing(), decoder, posterior, StandardNormal(2), Columns(columns), ELBO()), columns_of(columns)


def test_missing_numbers_are_filled_with_their_conditional_mean():
    rng = np.random.default_rng(1)
    weight, bias, noise = rng.standard_normal((3, 2)), rng.standard_normal(3), 0.6
    model, columns = linear_gaussian(weight, bias, noise)
    assert model.encode(torch.zeros(1, 1, 1, 3)).stddev.detach().numpy() == pytest.approx(1, abs=1e-5)
    x = torch.tensor([[0.3, np.nan, -0.5], [np.nan, np.nan, 0.9]], dtype=torch.float32)
    torch.manual_seed(0)
    filled = fill(model, x.view(2, 1, 1, 3), None, 100_000, columns).flatten(1).numpy()
    covariance = weight @ weight.T + noise**2 * np.eye(3)
    for row, made in zip(x.numpy(), filled, strict=True):
        seen, gone = ~np.isnan(row), np.isnan(row)
        gain = covariance[np.ix_(gone, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
        np.testing.assert_allclose(made[gone], bias[gone] + gain @ (row[seen] - bias[seen]), atol=0.02)
        np.testing.assert_array_equal(made[seen], row[seen])
    exact = [
        stats.multivariate_normal.logpdf([0.3, -0.5], bias[[0, 2]], covariance[np.ix_([0, 2], [0, 2])]),
        stats.multivariate_normal.logpdf([0.9], bias[[2]], covariance[np.ix_([2], [2])]),
    ]
    ours = model.log_marginal(x.view(2, 1, 1, 3), num_samples=100_000)
    np.testing.assert_allclose(ours, exact, atol=0.02)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on 300 rows of two columns that depend on each other, a town and a count; one row is absurd."""
    folder, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(0)
    height = rng.normal(170, 10, 300)
    frame = pd.DataFrame({"height": height, "weight": 0.9 * height - 90 + rng.normal(0, 4, 300)}).round(3)
    frame["town"] = rng.choice(["Bonn", "Rome"], 300)
    frame["children"] = rng.poisson(2, 300)
    frame.loc[rng.random(300) < 0.1, "weight"] = np.nan
    frame.loc[7, "height"] = 999.0
    frame.to_csv(folder / "people.csv", index=False)
    train(composed(*SMALL, f"data.source.path={folder}/people.csv"), folder / "run")
    return folder / "run", frame


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_samples_are_rows_in_the_units_of_the_table(run):
    folder, frame = run
    generated(folder, "samples", "num_images=200")
    rows = pd.read_csv(folder / "images" / "samples" / "samples.csv")
    assert list(rows) == list(frame)
    assert len(rows) == 200
    assert set(rows["town"]) <= {"Bonn", "Rome"}
    assert (rows["children"] % 1 == 0).all()
    drawn = {path.name for path in (folder / "images" / "samples").glob("*.png")}
    assert drawn == {"samples.png", "correlations.png", "table.png"}


@pytest.mark.slow
def test_missing_entries_are_filled_in_and_the_error_is_measured_beside_others(run):
    folder, _ = run
    numbers = generated(folder, "impute", "split=train", "num_samples=50")
    rows = pd.read_csv(folder / "images" / "impute" / "imputed.csv")
    assert not rows.isna().any().any()
    names = ("model", "mean", "nearest", "iterative")
    assert set(numbers) == {"hidden", *(f"{kind}_{name}" for kind in ("rmse", "accuracy") for name in names)}
    assert numbers["hidden"] > 100
    assert numbers["rmse_mean"] > 0.5  # a column mean has an error of about one standard deviation


@pytest.mark.slow
def test_the_absurd_row_is_found_with_its_column(run):
    folder, frame = run
    lines = []
    for split in ("train", "val", "test"):
        generated(folder, "anomalies", f"split={split}")
        rows = rows_of(folder / "images" / "anomalies" / "anomalies.csv")
        lines += [int(row["line"]) for row in rows]
        for row in rows:
            there = frame.iloc[int(row["line"]) - 2]
            assert (float(row["height"]), row["town"]) == (there["height"], there["town"])
        if any(row["line"] == "9" for row in rows):
            assert rows[0]["line"] == "9"
            assert rows[0]["strange"].startswith("height=999 (+")
    assert sorted(lines) == list(range(2, 302))


@pytest.mark.slow
def test_another_table_is_scored_coded_and_filled_in(run, tmp_path):
    """A copy of rows of the split has their scores, codes and names; what is missing is filled in, the rest is kept."""
    folder, frame = run
    generated(folder, "anomalies", "split=val")
    own = rows_of(folder / "images" / "anomalies" / "anomalies.csv")
    other = frame.iloc[[int(row["line"]) - 2 for row in own]]
    other[reversed(other.columns)].to_csv(tmp_path / "new.csv", index=False)
    numbers = generated(folder, "anomalies", "split=val", "num_samples=2000", f"input={tmp_path}/new.csv")
    assert numbers["num_input"] == len(own)
    given = {row["row"]: row for row in rows_of(folder / "images" / "anomalies" / "input.csv")}
    own = rows_of(folder / "images" / "anomalies" / "anomalies.csv")
    scores = sorted(float(row["score"]) for row in given.values())
    assert np.allclose(scores, sorted(float(row["score"]) for row in own), rtol=0.05)
    assert sorted(float(row["share_lower"]) for row in given.values())[-1] >= 1 - 2 / len(own)
    assert set(given) == {f"{tmp_path}/new.csv:{line}" for line in range(2, len(own) + 2)}
    generated(folder, "embeddings", f"input={tmp_path}/new.csv")
    coded = rows_of(folder / "images" / "embeddings" / "embeddings.csv")
    assert [row["name"] for row in coded] == [f"{tmp_path}/new.csv:{line}" for line in range(2, len(own) + 2)]
    generated(folder, "impute", "num_samples=20", f"input={tmp_path}/new.csv")
    filled = pd.read_csv(folder / "images" / "impute" / "imputed.csv")
    assert not filled.isna().any().any()
    assert np.allclose(filled["height"], other["height"], atol=1e-3)
    frame.drop(columns="town").to_csv(tmp_path / "less.csv")
    with pytest.raises(ConfigError, match=r"less.csv has no column town"):
        generated(folder, "anomalies", f"input={tmp_path}/less.csv")


@pytest.mark.slow
def test_what_is_for_pictures_alone_is_refused(run):
    with pytest.raises(NoMeaningError, match="what=inpaint is for pictures, the data are rows of a table: choose of"):
        generated(run[0], "inpaint")
    with pytest.raises(ConfigError, match="against=mnist is for pictures"):
        generated(run[0], "anomalies", "against=mnist")
