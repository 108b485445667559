"""Data given from Python, kept in a file from which the run is read back later."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from vae_exp.arrays import levels_for, range_of
from vae_exp.config import ConfigError
from vae_exp.data.attributes import NAMES, frame_of, is_rows
from vae_exp.data.schema import found
from vae_exp.files import written

__all__ = ["Given", "given"]

CHANNELS = (1, 3, 4)  # of a picture; they tell (N, C, H, W) from (N, H, W, C)
SHARE = 10  # of the images, one in so many validates, and as many test
SPLITS = ("", "_train", "_val", "_test")

log = logging.getLogger("vae_exp")


class Given(NamedTuple):
    """Data given from Python.

    Attributes:
        settings: What trains on the file, by key: data, data.source.path, data.image_shape, data.levels, ...
        path: The file, named for what is in it.
        content: Its arrays, as `data=npz` reads them; or the text of a table, as `data=table` reads it.
        about: What was decided, in words.
    """

    settings: dict[str, Any]
    path: Path
    content: dict[str, np.ndarray] | bytes
    about: str

    @property
    def is_table(self) -> bool:
        """Whether it is a table: the config is then found in the file."""
        return isinstance(self.content, bytes)

    def write(self) -> None:
        """Writes the file, unless it is there."""
        if self.path.exists():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with written(self.path, "wb") as file:
            if isinstance(self.content, bytes):
                file.write(self.content)
            else:
                np.savez_compressed(file, allow_pickle=False, **self.content)

    def say(self) -> None:
        """Says in a line where the file is, and what was decided."""
        log.info("data            kept in %s%s", self.path, self.about)


def given(data: Any, folder: Path, image_shape: Sequence[int] | None = None) -> Given:
    """What is needed to train on data from Python; nothing is written yet.

    Arguments:
        data: Images x, an array or a tensor: `(N, H, W)`, `(N, C, H, W)`, `(N, H, W, C)`, or vectors `(N, D)`, which
            are kept as images `(1, 1, D)`; a pair (x, y); a mapping of arrays as `data=npz` reads them, x or x_train,
            x_val, x_test and y, ...; or a Dataset of torch, whose items are x or (x, y). Labels y `(N,)` of any kind,
            or attributes `(N, A)`, also a DataFrame. Or a DataFrame of pandas, without its index.
        folder: Where the file is kept.
        image_shape: `(C, H, W)`, where x does not tell.

    Raises:
        ConfigError: If these are no such data; the message says what is needed.
    """
    if hasattr(data, "to_csv"):
        content = data.to_csv(index=False).encode()
        path = folder / f"{sha256(content).hexdigest()[:16]}.csv"
        return Given({"data": "table", "data.root": str(folder), "data.source.path": path.name}, path, content, "")
    arrays = _arrays(data)
    shape = _lay_out(arrays, image_shape)
    levels, (classes, attributes) = _levels(arrays), _told(arrays)
    path = folder / f"{_digest(arrays)}.npz"
    settings = {
        "data": "npz",
        "data.root": str(folder),
        "data.source.path": path.name,
        "data.image_shape": shape,
        "data.levels": levels,
        "data.num_classes": None if classes is None else len(classes),
        "data.attributes": attributes,
    }
    num = max(1, len(arrays.get("x", arrays.get("x_train", ()))) // SHARE)
    cut = [name for name in ("val", "test") if f"x_{name}" not in arrays]
    settings |= {f"data.{name}_size": num for name in cut}
    if levels == 2:
        settings["likelihood"] = "bce"
    about = f"; unless stated, {num} images are cut off for {' and for '.join(cut)}" if cut else ""
    if classes is not None and classes != list(range(len(classes))):
        about += f"; the classes 0 to {len(classes) - 1} are {', '.join(map(str, classes[:10]))}"
    return Given(settings, path, arrays, about)


def _arrays(data: Any) -> dict[str, np.ndarray]:
    if isinstance(data, Mapping):
        known = {NAMES, *(f"{kind}{split}" for kind in "xy" for split in SPLITS)}
        if unknown := [str(name) for name in data if name not in known]:
            raise ConfigError(f"data={{{', '.join(unknown)}}}: the arrays are x and y, or x_train, x_val, x_test, ...")
        arrays = {name: _array(name, each) for name, each in data.items()}
    elif isinstance(data, tuple) and len(data) == 2:
        arrays = {"x": _array("x", data[0]), **_labels(data[1])}
    elif isinstance(data, Dataset):
        arrays = _items(data)
    else:
        arrays = {"x": _array("x", data)}
    if "x" not in arrays and "x_train" not in arrays:
        raise ConfigError("data: x is missing, or x_train (with x_val and x_test if the set has such splits)")
    for name, y in arrays.items():
        x = arrays.get(name.replace("y", "x", 1), y)
        if name.startswith("y") and (y.ndim not in (1, 2) or len(y) != len(x)):
            raise ConfigError(
                f"data: {name} is of shape {y.shape}, but ({len(x)},) is needed, one label for each image, or "
                f"({len(x)}, A), attributes"
            )
    return arrays


def _labels(y: Any) -> dict[str, np.ndarray]:
    """Labels, or attributes; the columns of a DataFrame are named, and texts in it make all of it texts."""
    if not hasattr(y, "columns"):
        return {"y": _array("y", y)}
    are_numbers = all(kind.kind in "biuf" for kind in y.dtypes)
    return {"y": y.to_numpy(np.float64 if are_numbers else str), NAMES: np.array([str(name) for name in y.columns])}


def _array(name: str, values: Any) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    if not isinstance(values, np.ndarray | list | tuple) and not hasattr(values, "__array__"):
        raise ConfigError(f"data: {name} is a {type(values).__name__}: an array, a tensor or a Dataset is needed")
    try:
        array = np.asarray(values)
    except ValueError as error:  # images of several sizes
        raise ConfigError(f"data: {name} is no array: {error}") from error
    if array.dtype == object or (array.dtype.kind not in "biuf" and name.startswith("x")):
        raise ConfigError(f"data: {name} holds values of type {array.dtype}: numbers are needed")
    return array


def _items(data: Dataset[Any]) -> dict[str, np.ndarray]:
    """Every item of a Dataset, once and in order."""
    images, labels = [], []
    total = len(data) if hasattr(data, "__len__") else None
    items: Iterable[Any] = data if total is None else (data[i] for i in range(total))  # type: ignore[assignment]
    for item in tqdm(items, desc="reading the Dataset", total=total, disable=None, leave=False):
        x, *y = item if isinstance(item, tuple | list) else (item,)
        images.append(_array("x", x))
        labels += [np.asarray(each).item() if np.ndim(each) == 0 else np.asarray(each) for each in y[:1]]
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise ConfigError(f"data: the images of the Dataset have {len(shapes)} shapes, one is needed")
    if labels and any(not isinstance(label, int | str) and np.ndim(label) != 1 for label in labels):
        raise ConfigError(
            "data: the second part of an item of the Dataset is no label, a whole number or a text, nor a row of "
            "attributes"
        )
    arrays = {"x": np.stack(images)}
    return arrays | ({"y": np.asarray(labels)} if labels else {})


def _lay_out(arrays: dict[str, np.ndarray], image_shape: Any) -> list[int]:
    """Makes every x `(N, C, H, W)`; returns `[C, H, W]`."""
    for name in [name for name in arrays if name.startswith("x")]:
        x = arrays[name]
        if x.ndim not in (2, 3, 4) or not x.size:
            raise ConfigError(f"data: {name} is of shape {x.shape}: (N, H, W), (N, C, H, W), (N, H, W, C) or (N, D)")
        if image_shape is not None:
            continue  # data=npz reads x by it
        if x.ndim == 2:
            x = x[:, None, None]
        elif x.ndim == 3:
            x = x[:, None]
        elif x.shape[3] in CHANNELS and x.shape[1] in CHANNELS:
            raise ConfigError(
                f"data: {name} is of shape {x.shape}, where are the colours? Set data.image_shape=[C,H,W]"
            )
        elif x.shape[3] in CHANNELS:
            x = x.transpose(0, 3, 1, 2)
        arrays[name] = x
    shapes = {x.shape[1:] for name, x in arrays.items() if name.startswith("x")}
    if len(shapes) != 1:
        raise ConfigError(f"data: the splits have images of several shapes, {shapes}")
    return list(image_shape or shapes.pop())


def _levels(arrays: dict[str, np.ndarray]) -> int | str | None:
    """`data.levels` of the pixels; bits become bools, other whole numbers up to 255 bytes, floats float32."""
    pixels = {name: x for name, x in arrays.items() if name.startswith("x")}
    if any(x.dtype.kind == "f" and not np.isfinite(x).all() for x in pixels.values()):
        raise ConfigError("data: some pixels of x are nan or infinite")
    found = [range_of(x) for x in pixels.values()]
    levels = levels_for(found)
    are_bytes = all(low >= 0 and high <= 255 for low, high, *_ in found)
    kind: Any = bool if levels == 2 else np.float32 if levels != 256 else np.uint8 if are_bytes else np.int64
    arrays.update({name: np.ascontiguousarray(x, kind) for name, x in pixels.items()})
    return levels


def _told(arrays: dict[str, np.ndarray]) -> tuple[list[Any] | None, list[dict[str, Any]] | None]:
    """The labels that there are, in order, and what attributes are; None for either that there is not."""
    labels = {name: y for name, y in arrays.items() if name.startswith("y")}
    if not labels:
        return None, None
    if not any(is_rows(y) for y in labels.values()):  # a column of labels, or one-hot
        labels = {k: y if y.ndim == 1 else y.argmax(1) if y.shape[1] > 1 else y[:, 0] for k, y in labels.items()}
    if missing := [name for name in arrays if name.startswith("x") and name.replace("x", "y", 1) not in labels]:
        raise ConfigError(f"data: {', '.join(missing)} has no labels, but another split has; give all or none")
    if any(y.ndim == 2 for y in labels.values()):
        try:
            return None, found(
                frame_of(np.concatenate([*labels.values()]), arrays[NAMES].tolist() if NAMES in arrays else None)
            )
        except ValueError as error:
            raise ConfigError(f"data: y: {error}") from error
    return _numbered(arrays, labels), None


def _numbered(arrays: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> list[Any]:
    """The labels that there are, in order; every y becomes their numbers from 0."""
    if any(y.dtype.kind == "f" and (y != y.round()).any() for y in labels.values()):
        raise ConfigError(
            "data: the labels y are real numbers; classes are needed, whole numbers or texts (y[:, None] is a column "
            "of attributes)"
        )
    there = np.unique(np.concatenate(list(labels.values())))
    are_numbers = there.dtype.kind in "iuf" and there.min() >= 0 and there.max() < 2 * len(there)
    classes = list(range(int(there.max()) + 1)) if are_numbers and there.min() == 0 else there.tolist()
    places = {label: k for k, label in enumerate(classes)}
    arrays.update({name: np.array([places[label] for label in y.tolist()], np.int64) for name, y in labels.items()})
    return classes


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
