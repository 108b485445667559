"""Tables: columns found by type and changed by the user, entries as they stand in the file."""

import numpy as np
import pandas as pd
import pytest
from helpers.runs import composed
from omegaconf import OmegaConf

from vae_exp.config import ConfigError
from vae_exp.data import Table
from vae_exp.data.schema import schema_of
from vae_exp.runs.build import bound, build, prepare

FRAME = pd.DataFrame(
    {
        "height": [1.5, 1.75, np.nan, 2.0] * 10,
        "age": [31, 0, 7, 99] * 10,
        "smokes": [0, 1, 1, 0] * 10,
        "town": ["Rome", "Bonn", None, "Rome"] * 10,
        "ill": ["yes", "no", "no", "yes"] * 10,
        "is_new": [True, False, True, True] * 10,
    }
)
TINY = ("data=table", "encoder.hidden=[8]", "encoder.out_features=8", "decoder.hidden=[8]", "data.batch_size=8")


@pytest.fixture
def path(tmp_path):
    FRAME.to_csv(tmp_path / "my table.csv", index=False)
    return tmp_path / "my table.csv"


def run(path, *options):
    return composed(*TINY, f"data.source.path='{path}'", *options)


def test_columns_are_found_by_type(path):
    columns = {column["name"]: column for column in schema_of(path, {}, None)["columns"]}
    assert {name: column["kind"] for name, column in columns.items()} == {
        "height": "real",
        "age": "count",
        "smokes": "binary",
        "town": "categorical",
        "ill": "categorical",
        "is_new": "categorical",
    }
    assert columns["town"]["categories"] == ["Bonn", "Rome"]
    assert columns["is_new"]["categories"] == [False, True]
    assert [name for name, column in columns.items() if column.get("missing")] == ["height", "town"]


def test_kinds_are_changed_and_columns_left_out(path):
    kinds = {"age": "real", "town": "none", "smokes": "categorical"}
    found = schema_of(path, kinds, "ill")
    assert [(c["name"], c["kind"]) for c in found["columns"]] == [
        ("height", "real"),
        ("age", "real"),
        ("smokes", "categorical"),
        ("is_new", "categorical"),
    ]
    assert found["labels"] == ["no", "yes"]
    assert found["columns"][2]["categories"] == [0, 1]


def test_rows_are_what_the_file_says(path):
    schema = schema_of(path, {}, "ill")
    split = Table(str(path), {}, "ill", schema).load(path.parent)["train"]
    assert split.x.shape == (40, 1, 1, 5)
    np.testing.assert_array_equal(
        split.x[:4, 0, 0],
        np.float32([[1.5, 31, 0, 1, 1], [1.75, 0, 1, 0, 0], [np.nan, 7, 1, np.nan, 1], [2, 99, 0, 1, 1]]),
    )
    assert split.y[:4].tolist() == [1, 0, 0, 1]
    frame = FRAME.assign(town="Paris")
    frame.to_csv(path, index=False)
    with pytest.raises(ValueError, match="column 'town' holds 'Paris', which is none of the categories of the run"):
        Table(str(path), {}, "ill", schema).load(path.parent)


def test_a_config_states_the_table_and_needs_it_no_more(path):
    cfg = run(path, "model=cvae", "data.source.label=ill")
    OmegaConf.resolve(cfg)
    assert list(cfg.data.image_shape) == [1, 1, 5]
    assert cfg.data.num_classes == cfg.model.context_dim == 2
    assert (cfg.data.train_size, cfg.data.val_size, cfg.data.test_size) == (28, 4, 8)
    path.rename(path.with_name("moved.csv"))
    model, data = build(cfg)
    assert bound(model, data) == {
        "of": "log p(x|y)",
        "representation": "rows of 1 real, 1 count, 1 binary, 2 categorical",
        "kind": "density",
        "is_bound": True,
        "units": "nats per row",
    }


def test_scales_are_fitted_on_the_training_rows_alone(path):
    model, data = build(run(path))
    prepare(data)
    for part in (model.encoder, model.likelihood):
        part.start_from(data.training_images(whole=True))
    height = data.splits["train"].x[..., 0]
    height = height[~height.isnan()]
    for part in (model.encoder, model.likelihood):
        assert part.shift[0].item() == pytest.approx(height.mean().item(), abs=1e-6)
        assert part.scale[0].item() == pytest.approx(height.std(correction=0).item(), abs=1e-6)
    x, y = next(iter(data.val_dataloader()))
    loss, draw = model.objective(model, x, y, model.step)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert draw.elbo.shape == (4,)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("encoder=mlp",), "MLP cannot read missing values: choose encoder=columns"),
        (("likelihood=sse",), r"Normal scores pixels in .*Ways out: likelihood=columns"),
        (("data.source.kinds={hight: real}",), r"data\.source\.kinds: .* has no column 'hight'; it has height, age"),
        (("data.source.kinds={town: real}",), "column 'town' is real, but it holds 'Rome'"),
        (("data.scale=standardize",), "data.scale=standardize is for real numbers"),
        (("data.levels=256",), "for pixels: leave them out"),
        (("data.source.path=none.csv",), "there is no"),
        (("data.source.path=null",), r"data\.source\.path is not given"),
    ],
)
def test_what_does_not_fit_is_named(options, named, path):
    with pytest.raises(ConfigError, match=f"(?s){named}"):
        build(run(path, *options))


def test_counts_that_are_none_are_named(path):
    _, data = build(run(path, "data.source.kinds={height: count}"))
    with pytest.raises(ConfigError, match=r"column 'height' is count, but train holds 1\.5"):
        prepare(data)


def test_numbers_that_float32_cannot_tell_apart_are_refused(path):
    FRAME.assign(time=1.7e9 + np.arange(40.0)).to_csv(path, index=False)
    _, data = build(run(path, "data.source.kinds={time: real}"))
    with pytest.raises(ConfigError, match="column 'time': float32 does not tell its entries apart"):
        prepare(data)


def test_parquet_is_read_as_csv_is(path):
    pytest.importorskip("pyarrow")
    FRAME.to_parquet(path.with_suffix(".parquet"))
    assert schema_of(path.with_suffix(".parquet"), {}, None) == schema_of(path, {}, None)
