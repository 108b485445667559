"""A folder of pictures: what is found, cropped and labelled; streamed pictures give what those in memory give."""

import gc
import os
import struct
import warnings
import zlib
from contextlib import contextmanager
from io import BytesIO
from itertools import product

import numpy as np
import pytest
import torch
from helpers.cases import slow_but
from helpers.runs import composed, pictures
from PIL import Image

from vae_exp.config import ConfigError
from vae_exp.data import Batches, ImageFolder, Images, InFiles, Representation, Split
from vae_exp.data.picture import decode
from vae_exp.training.job import train

# Python 3.12 and later say so of every fork beside threads; the workers only read files.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

SHAPE = [3, 8, 8]


@contextmanager
def suppressed():
    """Without PIL's own warning of a large picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def pixels(n, shape=(8, 8, 3)):
    return np.random.default_rng(0).integers(256, size=(n, *shape), dtype=np.uint8)


def save(path, picture, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Twenty pictures in two classes."""
    for i, picture in enumerate(pixels(20)):
        save(tmp_path / "mine" / "ba"[i % 2] / f"{i:02}.png", picture)
    return tmp_path / "mine"


def source(folder, **options):
    return ImageFolder(str(folder), **{"image_shape": SHAPE, "num_classes": None} | options)


def images(folder, **options):
    options = {"val_size": 4, "test_size": 4, "batch_size": 4, "eval_batch_size": 3} | options
    of_source = {k: options.pop(k) for k in ("in_memory", "workers") if k in options}
    num_classes = options.pop("num_classes", 2)
    made = source(folder, num_classes=num_classes, **of_source)
    return Images(made, ".", SHAPE, num_classes, **options)


# What is found


def test_finds_all_pictures_sorted_by_path(tmp_path):
    names = ["b/a/1.PNG", "a.bmp", "z.webp", "c d.jpeg", "c.jpg"]
    for name, picture in zip(names, pixels(5), strict=True):
        save(tmp_path / name, picture)
    for other in ("notes.txt", ".hidden.png", "b/thumbs.db"):
        (tmp_path / other).touch()
    split = source(tmp_path).load(tmp_path)["train"]
    assert list(split.names) == ["a.bmp", "b/a/1.PNG", "c d.jpeg", "c.jpg", "z.webp"]
    assert split.shape == (5, 3, 8, 8) == split.read().shape
    assert split.y.tolist() == [-1] * 5
    bmp, png = torch.from_numpy(pixels(5)[[1, 0]]).permute(0, 3, 1, 2)
    assert torch.equal(split.pixels(slice(2)), torch.stack([bmp, png]))  # without loss, to the byte
    assert torch.equal(split.pixels(torch.tensor([1, 0])), torch.stack([png, bmp]))


def test_a_path_is_looked_for_from_home_the_current_folder_and_the_root(folder, tmp_path, monkeypatch):
    assert len(ImageFolder("mine", SHAPE, None).load(folder.parent)["train"]) == 20
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(ImageFolder("~/mine", SHAPE, None).load(tmp_path / "nowhere")["train"]) == 20
    save(tmp_path / "here" / "mine" / "one.png", pixels(1)[0])
    monkeypatch.chdir(tmp_path / "here")
    assert len(ImageFolder("mine", SHAPE, None).load(folder.parent)["train"]) == 1


def test_labels_are_the_folders_in_the_alphabet(folder):
    split = source(folder, num_classes=2).load(folder)["train"]
    assert split.y.tolist() == [0] * 10 + [1] * 10  # a holds the odd ones
    assert torch.equal(split.pixels(slice(1))[0], torch.from_numpy(pixels(20)[1]).permute(2, 0, 1))
    assert split.y.dtype == torch.int64


def test_folders_of_splits(tmp_path):
    for i, picture in enumerate(pixels(6)):
        save(tmp_path / ("train", "train", "test")[i % 3] / "xy"[i // 3] / f"{i}.png", picture)
    splits = source(tmp_path, num_classes=2).load(tmp_path)
    assert {name: (list(split.names), split.y.tolist()) for name, split in splits.items()} == {
        "train": (["x/0.png", "x/1.png", "y/3.png", "y/4.png"], [0, 0, 1, 1]),
        "test": (["x/2.png", "y/5.png"], [0, 1]),
    }
    data = images(tmp_path, test_size=None, val_size=1, batch_size=2)
    data.setup("fit")
    data.setup("test")
    assert {name: len(split.y) for name, split in data.splits.items()} == {"train": 3, "val": 1, "test": 2}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"image_shape": [2, 8, 8]}, r"data\.image_shape=\[2, 8, 8\]"),
        ({"image_shape": [8, 8]}, r"data\.image_shape=\[8, 8\]"),
        ({"in_memory": "often"}, r"data\.source\.in_memory=often"),
        ({"workers": -1}, r"data\.source\.workers=-1"),
        ({"background": "blak"}, r"data\.source\.background=blak: a colour is needed"),
    ],
)
def test_values_that_make_no_sense(options, named):
    with pytest.raises(ValueError, match=named):
        source(".", **options)


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.source\.path=/my/pictures"):
        ImageFolder(None, SHAPE, None).fetch(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=rf"data\.source\.path=here: there is no .*/here and no {tmp_path}/here"
    ):
        ImageFolder("here", SHAPE, None).fetch(tmp_path)
    with pytest.raises(ValueError, match=rf"data\.source\.path: no \.jpg.* reads in {tmp_path}"):
        source(tmp_path).load(tmp_path)
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match=r"data\.source\.path: .* has a folder test, but no folder train"):
        source(tmp_path).load(tmp_path)


def test_folders_that_are_no_classes(folder):
    with pytest.raises(ValueError, match=r"data\.num_classes=3, but .* has 2 folders of pictures: a, b"):
        source(folder, num_classes=3).load(folder)
    save(folder / "0.png", pixels(1)[0])
    with pytest.raises(ValueError, match=r"0\.png is not exactly one folder below"):
        source(folder, num_classes=2).load(folder)


def test_what_is_left_out_is_counted_by_reason(tmp_path):
    for name in ("a.png", "b/c.TIF", "b/d.gif", "e.jfif", ".ipynb_checkpoints/a.png", "b/.f.png", "__MACOSX/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        kind = {"e.jfif": "JPEG"}.get(name)
        Image.fromarray(pixels(1)[0]).save(tmp_path / name, kind)
    for name in ("x.heic", "y.heic", "README"):
        (tmp_path / name).touch()
    data = Images(source(tmp_path), ".", SHAPE, None, val_size=1, test_size=1, batch_size=1)
    data.setup("fit")
    assert data.contents.as_dict() == {
        "images": {"train": 2, "val": 1, "test": 1},
        "left_out": {"hidden": 3, ".heic": 2, "without a suffix": 1},
        "notes": ["the first frame of 1 .gif, 1 .tif, if there are several"],
        "unit": "image",
    }
    assert str(data.contents) == (
        "2 images to train on, 1 to validate on, 1 to test on; "
        "4 of 10 files, left out: 3 hidden, 2 .heic, 1 without a suffix; "
        "the first frame of 1 .gif, 1 .tif, if there are several"
    )


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_name_that_is_no_text_is_read(tmp_path):
    save(tmp_path / "a.png", pixels(1)[0])
    (tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"\xff.png"))
    split = source(tmp_path).load(tmp_path)["train"]
    assert len(split.checksum) == 16
    assert split.read().shape == (1, *SHAPE)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Validation", "dev", "val_set", "validation images"])
def test_a_split_by_its_other_names(tmp_path, val):
    for top, n in (("Training", 3), (val, 2), ("test_set", 1), ("extra", 4)):
        for i in range(n):
            save(tmp_path / top / f"{i}.png", pixels(1)[0])
    files = source(tmp_path)
    assert {name: len(split) for name, split in files.load(tmp_path).items()} == {"train": 3, "val": 2, "test": 1}
    assert files.left_out == {"in extra/, which is no split": 4}


@pytest.mark.parametrize(
    ("folders", "named"),
    [
        (("valid", "other"), "has a folder valid, but no folder train"),
        (("train", "val", "dev"), "has two folders for the split val, dev and val"),
        (("seg_train", "seg_test"), "seg_test, seg_train in .* look like splits"),
        (("set/train", "set/valid"), "train, valid look like splits, but lie deeper in .*: set/train/0.png"),
        (("cats/train", "dogs/test"), "test, train look like splits, but lie deeper"),
    ],
)
def test_splits_are_never_pooled(tmp_path, folders, named):
    for name in folders:
        save(tmp_path / name / "0.png", pixels(1)[0])
    with pytest.raises(ValueError, match=named):
        source(tmp_path).load(tmp_path)


def test_a_picture_of_two_splits_by_a_link_is_in_one(tmp_path):
    for top in ("train", "val"):
        for i in range(2):
            save(tmp_path / top / f"{i}.png", pixels(1)[0])
    (tmp_path / "val" / "copy.png").symlink_to("../train/0.png")
    files = source(tmp_path)
    assert {name: len(split) for name, split in files.load(tmp_path).items()} == {"train": 2, "val": 2}
    assert files.left_out == {"links to others of them": 1}


# What becomes of one


def png(picture, mode=None, **options):
    from io import BytesIO

    buffer = BytesIO()
    image = Image.fromarray(picture)
    (image if mode is None else image.convert(mode)).save(buffer, "PNG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(8, 12), (12, 8), (8, 8)])
def test_the_middle_is_kept(size):
    picture = pixels(1, (*size, 3))[0]
    top, left = (size[0] - 8) // 2, (size[1] - 8) // 2
    expected = picture[top : top + 8, left : left + 8].transpose(2, 0, 1)
    np.testing.assert_array_equal(decode(png(picture), "x", SHAPE), expected)


def test_the_middle_has_the_shape_of_the_image():
    picture = pixels(1, (10, 8, 3))[0]
    np.testing.assert_array_equal(decode(png(picture), "x", [3, 4, 8]), picture[3:7].transpose(2, 0, 1))
    np.testing.assert_array_equal(decode(png(picture), "x", [3, 10, 2]), picture[:, 3:5].transpose(2, 0, 1))


def test_of_a_middle_of_given_side():
    picture = pixels(1, (14, 10, 3))[0]
    np.testing.assert_array_equal(decode(png(picture), "x", SHAPE, side=8), picture[3:11, 1:9].transpose(2, 0, 1))


def test_shrinking_takes_the_mean_of_all_pixels():
    """Antialiased: a triangle over the pixels around, of weight one, so the mean over the picture stays."""
    picture = pixels(1, (64, 64))[0]
    small = decode(png(picture), "x", [1, 4, 4])[0]
    # Along one axis, one output pixel weighs the inputs within one output pixel's width by a triangle.
    centres = (np.arange(4) + 0.5) * 16
    weights = np.maximum(0, 1 - abs(np.arange(64) + 0.5 - centres[:, None]) / 16)
    weights /= weights.sum(1, keepdims=True)
    assert abs(small - weights @ picture @ weights.T).max() <= 1  # rounded after each axis


def test_grey_and_colour_follow_the_shape():
    picture = pixels(1)[0]
    grey = picture.astype(float) @ [0.299, 0.587, 0.114]  # ITU-R 601-2
    assert abs(decode(png(picture), "x", [1, 8, 8])[0] - grey).max() <= 1
    one = decode(png(picture[..., 0]), "x", SHAPE)
    assert all(np.array_equal(channel, picture[..., 0]) for channel in one)
    np.testing.assert_array_equal(decode(png(picture, "RGBA"), "x", SHAPE), picture.transpose(2, 0, 1))


def test_a_photograph_stands_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # its top is on the right
    picture = pixels(1)[0]
    np.testing.assert_array_equal(decode(png(picture, exif=exif), "x", SHAPE), np.rot90(picture, -1).transpose(2, 0, 1))


def saved(image, kind="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def clear(kind):
    """An 8 by 8 picture whose left half is opaque red or white and whose right half is clear, with colours below it."""
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, :4] = 255, 0, 0, 255
    rgba[:, 4:, :3] = pixels(1, (8, 4, 3))[0]
    if kind in ("RGBA", "webp"):
        return saved(Image.fromarray(rgba), "PNG" if kind == "RGBA" else "WEBP", lossless=True, exact=True)
    if kind == "tiff":
        return saved(Image.fromarray(rgba), "TIFF")
    grey = np.where(np.arange(8) < 4, 255, 77).astype(np.uint8) * np.ones((8, 1), np.uint8)
    if kind == "LA":
        return saved(Image.merge("LA", [Image.fromarray(grey), Image.fromarray(rgba[..., 3])]))
    if kind == "L with a colour":
        return saved(Image.fromarray(grey), transparency=77)
    if kind == "RGB with a colour":
        rgba[:, 4:, :3] = 9, 8, 7
        return saved(Image.fromarray(rgba[..., :3].copy()), transparency=(9, 8, 7))
    palette = Image.fromarray((grey == 77).astype(np.uint8), "P")
    palette.putpalette([255, 0, 0, 1, 2, 3])
    return saved(palette, "GIF" if kind == "gif" else "PNG", transparency=1)


CLEAR = ["RGBA", "webp", "tiff", "LA", "L with a colour", "RGB with a colour", "palette", "gif"]


@pytest.mark.parametrize("kind", CLEAR)
@pytest.mark.parametrize(("background", "colour"), [("black", (0, 0, 0)), ("#102030", (16, 32, 48))])
def test_transparency_is_seen_as_the_background(kind, background, colour):
    seen = decode(clear(kind), "x", SHAPE, background=background)
    opaque = (255, 255, 255) if kind.startswith("L") else (255, 0, 0)
    np.testing.assert_array_equal(seen[:, :, :4].transpose(1, 2, 0), np.broadcast_to(opaque, (8, 4, 3)))
    np.testing.assert_array_equal(seen[:, :, 4:].transpose(1, 2, 0), np.broadcast_to(colour, (8, 4, 3)))


def test_half_transparency_is_blended():
    rgba = np.full((8, 8, 4), (200, 100, 0, 51), np.uint8)  # a fifth
    seen = decode(saved(Image.fromarray(rgba)), "x", SHAPE, background="white")
    assert abs(seen[:, 0, 0] - (np.array([200, 100, 0]) / 5 + 255 * 4 / 5)).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_real_numbers(kind):
    deep = np.random.default_rng(0).integers(2**16, size=(8, 8), dtype=np.uint16)
    content = saved(Image.fromarray(deep), kind)
    for channels in (1, 3):
        seen = decode(content, "x", [channels, 8, 8], levels="unit")
        assert seen.dtype == np.float32
        np.testing.assert_allclose(seen, np.broadcast_to(deep / 65535, (channels, 8, 8)), atol=1e-7)
    with pytest.raises(ValueError, match=r"data\.levels=unit reads all pictures as real numbers"):
        decode(content, "x", SHAPE)


def test_a_clear_level_of_sixteen_bits_is_the_background():
    deep = np.full((8, 8), 60_000, np.uint16)
    deep[:, 4:] = 1234
    # Pillow writes no tRNS here, so the chunk is put in by hand, before the pixels.
    whole, chunk = saved(Image.fromarray(deep)), b"tRNS" + struct.pack(">H", 1234)
    place = whole.index(b"IDAT") - 4
    content = whole[:place] + struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk)) + whole[place:]
    seen = decode(content, "x", [1, 8, 8], levels="unit", background="white")
    np.testing.assert_allclose(seen[0], np.where(np.arange(8) < 4, 60_000 / 65535, 1) * np.ones((8, 1)), atol=1e-6)


def test_floats_of_a_tiff_are_themselves():
    real = np.random.default_rng(0).random((8, 8), np.float32)
    np.testing.assert_array_equal(decode(saved(Image.fromarray(real), "TIFF"), "x", [1, 8, 8], levels="unit")[0], real)
    wide = saved(Image.fromarray(5 * real - 2), "TIFF")
    np.testing.assert_array_equal(decode(wide, "x", [1, 8, 8], levels=None)[0], 5 * real - 2)
    with pytest.raises(ValueError, match=r"its pixels lie in .*\n  scale them, or set data\.levels=null"):
        decode(wide, "x", [1, 8, 8], levels="unit")
    with pytest.raises(ValueError, match="some pixels are nan or infinite"):
        decode(saved(Image.fromarray(np.where(real > 0.5, np.inf, real)), "TIFF"), "x", [1, 8, 8], levels=None)
    with pytest.raises(ValueError, match="32 bits: white is not known"):
        decode(saved(Image.fromarray((real * 1e6).astype(np.int32)), "TIFF"), "x", [1, 8, 8], levels=None)


def test_bytes_are_real_numbers_where_those_are_asked_for(folder):
    files = ImageFolder(str(folder), SHAPE, None, levels="unit")
    data = Images(files, ".", SHAPE, None, levels="unit", val_size=4, test_size=4, batch_size=4)
    data.setup("fit")
    plain = images(folder, num_classes=None, eval_batch_size=4)
    plain.setup("fit")
    assert data.splits["val"].pixels(slice(None)).dtype == torch.float32
    ((x, _),), ((expected, _),) = data.val_dataloader(), plain.val_dataloader()
    torch.testing.assert_close(x, expected)


def test_the_first_frame_is_taken():
    frames = [Image.fromarray(picture) for picture in pixels(3)]
    first = saved(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(first, "x", SHAPE), pixels(3)[0].transpose(2, 0, 1))


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", png(pixels(1, (64, 64, 3))[0])[:-900], png(pixels(1, (8, 8))[0].astype(np.uint16) * 257)],
    ids=["empty", "page", "truncated", "16 bits"],
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_corrupt_picture_is_named(folder, content, in_memory):
    path = folder / "a" / "05.png"
    path.write_bytes(content)
    data = images(folder, in_memory=in_memory, workers=0, val_size=1, test_size=1, batch_size=18)
    with pytest.raises((ValueError, ConfigError), match=f"^{path} cannot be read as a picture: [^<]*$"):
        visit(data)


def visit(data):
    for stage in ("fit", "test"):
        data.setup(stage)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        list(loader)


@pytest.mark.slow
def test_a_corrupt_picture_is_named_by_a_worker(folder):
    (folder / "a" / "05.png").write_bytes(b"")
    with pytest.raises(
        ConfigError, match=r"a/05\.png cannot be read as a picture: it is empty\n  mend it or take it away$"
    ):
        visit(images(folder, in_memory=False, workers=1))


def test_a_picture_of_far_too_many_pixels_is_refused_by_name():
    for size in ((50_000, 10), (13_000, 13_000)):
        head = b"IHDR" + struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
        bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
        with (
            pytest.raises(ValueError, match=f"x.png cannot be read as a picture: {size[0]} by {size[1]} pixels"),
            suppressed(),
        ):
            decode(bomb + struct.pack(">I", 0) + b"IDAT", "x.png", SHAPE)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_no_picture(folder):
    os.mkfifo(folder / "a" / "pipe.png")
    with pytest.raises(ValueError, match=r"a/pipe\.png is not a file"):
        visit(images(folder, in_memory=True, val_size=1, test_size=1))


def test_a_link_to_nothing_is_named(folder):
    (folder / "a" / "link.png").symlink_to("nowhere.png")
    with pytest.raises(
        ValueError, match=r"a/link\.png cannot be read as a picture: No such file.*\n  mend it or take it away"
    ):
        source(folder).load(folder)


def test_links_give_each_picture_once_under_its_own_name(folder, tmp_path):
    names = source(folder).load(folder)["train"].names.tolist()
    (folder / "self").symlink_to(".")
    (folder / "a" / "up").symlink_to("..")
    (folder / "aa").symlink_to("b")
    (folder / "a" / "00.png").symlink_to("../b/00.png")
    save(tmp_path / "elsewhere" / "new.png", pixels(1)[0])
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    files = source(folder)
    assert files.load(folder)["train"].names.tolist() == [*names, "more/new.png"]
    assert files.left_out == {"links to others of them": 1}


# In memory or streamed


def test_auto_reads_what_is_small_and_streams_what_is_large(folder, monkeypatch):
    size = 20 * 3 * 8 * 8
    for memory, in_memory in ((4 * size, True), (4 * size - 1, False)):
        monkeypatch.setattr("vae_exp.data.image_folder.memory", lambda memory=memory: memory)
        data = images(folder)
        data.setup("fit")
        assert isinstance(data.splits["train"], Split) == in_memory


def passes(data, stage, epochs, **state):
    """All batches of some epochs, and torch's state at each."""
    data.setup("test" if stage == "test" else "fit")
    loader = getattr(data, f"{stage}_dataloader")()
    for key, value in state.items():
        setattr(loader, key, value)
    seen = [(x, y, torch.random.get_rng_state()) for _ in range(epochs) for x, y in loader]
    del loader
    gc.collect()  # ends the workers
    return seen


def assert_same(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("stage", "workers"), slow_but([("train", 2), ("val", 0), ("test", 0)], product(["train", "val", "test"], [0, 2]))
)
@pytest.mark.slow
def test_streamed_batches_are_those_in_memory(folder, stage, workers):
    """Pixels, labels, order over epochs and the random state of each step, to the bit."""
    memory, streamed = (images(folder, in_memory=value, workers=workers) for value in (True, False))
    ours, theirs = passes(streamed, stage, 2), passes(memory, stage, 2)
    assert_same(ours, theirs)
    assert isinstance(streamed.splits["test" if stage == "test" else "val"], InFiles)
    assert len(ours) == (6 if stage == "train" else 4)


@pytest.mark.slow
@pytest.mark.parametrize("workers", slow_but([0], [0, 2]))
def test_streamed_batches_of_a_resumed_epoch(folder, workers):
    data = images(folder, in_memory=False, workers=workers)
    uninterrupted = passes(images(folder, in_memory=True), "train", 3)  # three batches each
    assert_same(passes(data, "train", 2, epoch=1, position=2), uninterrupted[5:])


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"dequantize": True}, {"binarize": "dynamic"}], ids=["noise", "bits"])
def test_streamed_noise_in_training_is_that_in_memory(folder, options):
    memory, streamed = (images(folder, in_memory=value, workers=0, **options) for value in (True, False))
    assert_same(passes(streamed, "train", 1), passes(memory, "train", 1))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"dequantize": True}, {"binarize": "dynamic"}], ids=["noise", "bits"])
def test_streamed_noise_in_evaluation_is_fixed(folder, options):
    seen = passes(images(folder, in_memory=False, workers=0, **options), "val", 2)
    assert_same(seen[:2], seen[2:])
    x = torch.cat([x for x, *_ in seen[:2]])
    plain = torch.cat([x for x, *_ in passes(images(folder, in_memory=True), "val", 1)])
    if "binarize" in options:
        assert set(x.unique().tolist()) == {0.0, 1.0}
    else:
        assert torch.equal((x * 256).floor(), (plain * 255).round())
    assert not torch.equal(x, plain)


@pytest.mark.parametrize("binarize", ["static", "threshold"])
def test_bits_that_need_memory(folder, binarize):
    with pytest.raises(ValueError, match=rf"data\.binarize={binarize}.* data\.source\.in_memory=true"):
        images(folder, in_memory=False, binarize=binarize).setup("fit")
    images(folder, in_memory=True, binarize=binarize).setup("fit")


def test_a_split_in_files_is_what_it_is_in_memory(folder):
    """Everything that both can be asked, but for what memory is needed for."""
    files = source(folder, in_memory=False, workers=0, num_classes=2).load(folder)["train"]
    memory, chosen, y = files.read(), torch.arange(20) % 3 == 1, torch.arange(20)
    for a, b in (
        (files, memory),
        (files.only(chosen), memory.only(chosen)),
        (files.with_labels(y), memory.with_labels(y)),
    ):
        assert torch.equal(a.y, b.y)
        assert a.shape == b.shape
        assert torch.equal(a.pixels(slice(1, 5)), b.pixels(slice(1, 5)))
        for one, other in zip(*(s.batches([torch.tensor([4, 2])], s.device) for s in (a, b)), strict=True):
            assert all(map(torch.equal, one, other))
        assert a.on(torch.device("cpu")) is a
        assert a.checksum != b.checksum  # of the files, and of the pixels
    for split in (files, memory):
        with pytest.raises(ValueError, match=r"data\.levels=unit is for real numbers"):
            split.check("train", Representation("unit"))


@pytest.mark.parametrize("train", [True, False])
def test_processes_share_streamed_batches(folder, train):
    lazy = source(folder, in_memory=False, workers=0, num_classes=2).load(folder)["train"]
    memory = lazy.read()
    for rank in (0, 1):
        ours, theirs = (list(Batches(split, 6, train, 3, rank, world_size=2)) for split in (lazy, memory))
        assert_same(ours, theirs)
    # Of 7 images in batches of 6, the last one does not reach the second process.
    few = lazy.only(torch.arange(20) < 7)
    assert [len(x) for x, _ in Batches(few, 6, False, 3, 1, world_size=2)] == [3]


@pytest.mark.slow
def test_a_pass_that_is_left_and_taken_up_again(folder):
    """What was read ahead and not used is forgotten."""
    data = images(folder, in_memory=False, workers=1)
    data.setup("fit")
    loader = data.train_dataloader()
    first = iter(loader)
    next(first)
    first.close()
    whole = passes(images(folder, in_memory=True), "train", 2)
    second = [(x, y) for x, y in loader]
    gc.collect()
    assert_same(second, [(x, y) for x, y, _ in whole[3:]])


def test_streaming_leaves_the_runs_random_numbers_alone(folder):
    pictures = source(folder, in_memory=False, workers=0).load(folder)["train"]
    before = torch.random.get_rng_state()
    list(pictures.batches([torch.tensor([0, 1])], torch.device("cpu")))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_checksums_of_streamed_pictures_follow_their_files(folder):
    def checksum():
        data = images(folder, in_memory=False)
        data.setup("fit")
        return data.checksums

    first = checksum()
    assert checksum() == first
    assert set(first) == {"train", "val"}
    for path in folder.rglob("*.png"):
        path.write_bytes(path.read_bytes() + b"0")
    assert set(checksum().values()).isdisjoint(first.values())


def run_config(folder, in_memory, *more):
    return composed(
        "data=image_folder", f"data.source.path={folder}", "data.image_shape=[1,8,8]", "data.val_size=4",
        "data.test_size=4", "data.batch_size=4", f"data.source.in_memory={in_memory}", "data.source.workers=1",
        "latent_dim=3", "encoder.hidden=[8]", "decoder.hidden=[8]", "trainer=cpu", "trainer.max_epochs=2",
        "trainer.log_every_n_steps=1", "trainer.enable_progress_bar=false", "logger=csv", *more,
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_on_streamed_pictures_is_the_run_in_memory(folder, tmp_path):
    rows = []
    for in_memory in ("true", "false"):
        train(run_config(folder, in_memory), tmp_path / in_memory)
        text = (tmp_path / in_memory / "metrics.csv").read_text().splitlines()
        columns = [i for i, name in enumerate(text[0].split(",")) if "second" not in name]
        rows.append([[line.split(",")[i] for i in columns] for line in text])
        assert "reconstructions" in pictures(tmp_path / in_memory)
    gc.collect()
    assert rows[0] == rows[1]


def test_a_run_says_what_is_wrong_before_it_begins(folder, tmp_path):
    (folder / "a" / "05.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"05\.png cannot be read"):
        train(run_config(folder, "true", "data.val_size=1", "data.test_size=1"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r"data\.source\.path"):
        train(composed("data=image_folder"), tmp_path / "run")
