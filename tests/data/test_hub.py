"""`data=hub`: a set in the layout of the Hub, in a local folder, without a network."""

import io

import numpy as np
import pytest
from helpers.runs import composed
from PIL import Image

from vae_exp.config import ConfigError
from vae_exp.data import Hub
from vae_exp.runs.build import build, prepare

PIXELS = np.random.default_rng(0).integers(256, size=(12, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """A set of three splits, as its pages hold it: Parquet files with pictures and classes."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"]), "n": datasets.Value("int64")}
    )
    (tmp_path / "set" / "data").mkdir(parents=True)
    for name, rows in (("train", range(8)), ("validation", range(8, 10)), ("unsupervised", range(10, 12))):
        table = {"picture": [png(PIXELS[i]) for i in rows], "kind": [i % 2 for i in rows], "n": list(rows)}
        of_split = datasets.Dataset.from_dict(table, features=features)
        of_split.to_parquet(tmp_path / "set" / "data" / f"{name}-00000-of-00001.parquet")
    return tmp_path / "set"


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_folder_in_the_layout_of_the_hub(folder, tmp_path):
    source = Hub(str(folder), [3, 8, 8], 2)
    source.fetch(tmp_path)
    splits = source.load(tmp_path)
    assert {name: split.y.tolist() for name, split in splits.items()} == {"train": [0, 1] * 4, "val": [0, 1]}
    np.testing.assert_array_equal(splits["train"].x, PIXELS[:8].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(splits["val"].x, PIXELS[8:10].transpose(0, 3, 1, 2))
    assert source.left_out == {"in the split unsupervised": 2}
    assert Hub("set", [3, 8, 8], None).load(tmp_path)["train"].y.tolist() == [-1] * 8  # from data.root
    by_column = Hub(str(folder), [1, 4, 4], 10, label="n", levels="unit").load(tmp_path)
    assert by_column["val"].y.tolist() == [8, 9]
    assert by_column["val"].x.dtype.is_floating_point
    with pytest.raises(ValueError, match=r"data\.source\.label=no: choose a column, of picture \(Image\), kind"):
        Hub(str(folder), [3, 8, 8], 2, label="no").load(tmp_path)
    words = [f"data.source.name={folder}", "data.image_shape=[3,8,8]", "data.num_classes=2", "data.test_size=2"]
    _, data = build(composed("data=hub", *words, "data.batch_size=2", f"data.root={tmp_path}"))
    prepare(data)
    assert str(data.contents).startswith("6 images to train on, 2 to validate on, 2 to test on; 10 of 12 files")


def test_no_name():
    _, data = build(composed("data=hub"))
    with pytest.raises(ConfigError, match=r"data\.source\.name is not given: data\.source\.name=OWNER/SET"):
        prepare(data)
