"""CelebA: its files, packed and unpacked, and what is decoded once."""

import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from vae_exp.data import CelebA, Images, celeba

ROWS = {"train": 5, "val": 2, "test": 3}
SHAPE = [3, 37, 37]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(celeba, "ROWS", ROWS)


@pytest.fixture
def files(tmp_path):
    """The distributor's files, its splits not one after another; returns the folder and the decoded pictures."""
    folder = tmp_path / "celeba"
    (folder / celeba.FOLDER).mkdir(parents=True)
    numbers = [0, 2, 1, 0, 0, 2, 2, 0, 1, 0]
    pictures = []
    for i in range(10):
        path = folder / celeba.FOLDER / f"{i:06}.jpg"
        rough = np.random.default_rng(i).integers(256, size=(8, 8, 3), dtype=np.uint8)
        Image.fromarray(rough).resize((178, 218)).save(path)
        with Image.open(path) as image:
            pictures.append(np.asarray(image))
    (folder / "list_eval_partition.txt").write_text("".join(f"{i:06}.jpg {k}\n" for i, k in enumerate(numbers)))
    return folder, {
        name: np.stack([p for p, n in zip(pictures, numbers, strict=True) if n == k]) for k, name in enumerate(ROWS)
    }


def pack(folder):
    with zipfile.ZipFile(folder / f"{celeba.FOLDER}.zip", "w") as archive:
        for path in sorted((folder / celeba.FOLDER).iterdir()):
            archive.write(path, f"{celeba.FOLDER}/{path.name}")
    shutil.rmtree(folder / celeba.FOLDER)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("flat", [True, False])
def test_official_splits_of_the_middle(files, packed, flat):
    folder, pictures = files
    if packed:
        pack(folder)
    splits = CelebA([3, 148, 148]).load(folder if flat else folder.parent)
    assert list(splits) == list(ROWS)
    for name, (x, y) in splits.items():
        # 178 x 218 pixels: 15 to the left and 35 above, as torchvision's CenterCrop.
        middle = pictures[name][:, 35 : 35 + 148, 15 : 15 + 148].transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(x, middle)
        assert y.tolist() == [-1] * ROWS[name]


def test_resized_as_torchvision_does(files):
    from torchvision.transforms import functional

    folder, pictures = files
    for x, picture in zip(CelebA(SHAPE).load(folder)["train"].x, pictures["train"], strict=True):
        image = functional.resize(functional.center_crop(Image.fromarray(picture), [148]), [37, 37])
        np.testing.assert_array_equal(x, np.asarray(image).transpose(2, 0, 1))


def test_decoded_once(files, monkeypatch):
    folder, _ = files
    before = {path.name for path in folder.iterdir()}
    first = CelebA(SHAPE).load(folder)
    added = {path.name for path in folder.iterdir()} - before
    assert added == {f"celeba_{split}_3x37x37.npy" for split in ROWS}
    monkeypatch.setattr(celeba, "decode", None)
    again = CelebA(SHAPE).load(folder)
    assert all(torch.equal(again[split].x, first[split].x) for split in ROWS)
    with pytest.raises(TypeError):  # another size, other files
        CelebA([1, 8, 8]).load(folder)
    assert {path.name for path in folder.iterdir()} - before == added


def test_a_data_module_of_it(files):
    folder, pictures = files
    data = Images(CelebA([1, 8, 8]), str(folder), [1, 8, 8], None, batch_size=5, eval_batch_size=5)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert [x.shape for x, _ in data.train_dataloader()] == [(5, 1, 8, 8)]
    (x, _), *_ = data.test_dataloader()
    grey = (pictures["test"][:, 35:183, 15:163] @ [0.299, 0.587, 0.114]).mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(x.mean(dim=(1, 2, 3)), grey, atol=0.02)
    before = data.checksums
    assert set(before) == set(ROWS)


def test_missing_files_say_where_they_go(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        CelebA(SHAPE).fetch(tmp_path)
    message = str(error.value)
    for part in ("list_eval_partition.txt, img_align_celeba.zip", f"belongs in {tmp_path}/celeba", "data.root=FOLDER"):
        assert part in message
    assert message.count("\n") < 7
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("", "'train': 0"),
        ("000000.jpg 3\n", "0, 1 or 2"),
        ("<!DOCTYPE html>", "not lines"),
        ("x.jpg 0\n", "'train': 1"),
    ],
)
def test_a_damaged_partition_is_named(files, lines, why):
    folder, _ = files
    (folder / "list_eval_partition.txt").write_text(lines)
    with pytest.raises(ValueError, match=f"list_eval_partition.txt is corrupt: .*{why}"):
        CelebA(SHAPE).load(folder)


def test_a_damaged_archive_is_named(files):
    folder, _ = files
    pack(folder)
    path = folder / f"{celeba.FOLDER}.zip"
    content = path.read_bytes()
    for damaged, why in (
        (content[:-30], "does not unzip"),
        (
            content.replace(b"000003.jpg", b"300000.jpg"),
            "1 pictures are not in it, for example img_align_celeba/000003.jpg",
        ),
        (content[:200] + bytes(1000) + content[1200:], "000000.jpg does not unzip"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{path.name} is corrupt: .*{why}"):
            CelebA(SHAPE).load(folder)
    assert sorted(p.name for p in folder.iterdir()) == [path.name, "list_eval_partition.txt"]  # nothing half done


def test_a_damaged_picture_is_named(files):
    folder, _ = files
    (folder / celeba.FOLDER / "000004.jpg").write_bytes(b"<html>")
    with pytest.raises(ValueError, match=r"img_align_celeba/000004\.jpg cannot be read"):
        CelebA(SHAPE).load(folder)


def test_a_damaged_file_of_decoded_pictures_is_named(files):
    folder, _ = files
    CelebA(SHAPE).load(folder)
    path = folder / "celeba_val_3x37x37.npy"
    content = path.read_bytes()
    for damaged in (b"", content[:-10], np.random.default_rng(0).bytes(500)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{path.name} is corrupt"):
            CelebA(SHAPE).load(folder)
    np.save(path, np.zeros((3, *SHAPE), np.uint8))
    with pytest.raises(ValueError, match=r"is corrupt: uint8 \(3, 3, 37, 37\)"):
        CelebA(SHAPE).load(folder)
