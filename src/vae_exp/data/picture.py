"""One picture: the bytes of a file, and the pixels in them, on one background, cropped and resized."""

import stat
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vae_exp.data.representation import Levels

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["check_channels", "content", "decode"]

LARGEST = 500_000_000  # bytes of a file
MOST_PIXELS = 89_478_485  # of a picture, where PIL begins to warn: a byte a colour, they are 270 MB
LONGEST_SIDE = 30_000  # pixels
OF_16_BITS = ("PNG", "PPM")  # formats whose whole numbers of mode I are 0 to 65535


def content(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: If it is no file, such as a pipe, which would be waited for, or much too large for a picture.
    """
    try:
        about = path.stat()
    except OSError as error:
        raise ValueError(f"{path} cannot be read as a picture: {error.strerror}\n  mend it or take it away") from error
    if not stat.S_ISREG(about.st_mode):
        raise ValueError(f"{path} is not a file\n  take it away")
    if about.st_size > LARGEST:
        raise ValueError(f"{path} has {about.st_size:,} bytes, a picture at most {LARGEST:,}\n  take it away")
    return path.read_bytes()


def check_channels(image_shape: Sequence[int], background: str = "black") -> None:
    """Raises ValueError if the image is neither grey nor colour, or its background is no colour."""
    if len(image_shape) != 3 or image_shape[0] not in (1, 3):
        raise ValueError(f"data.image_shape={list(image_shape)}: pictures are [1, H, W], grey, or [3, H, W], colour")
    from PIL import ImageColor

    try:
        ImageColor.getrgb(str(background))
    except ValueError as error:
        raise ValueError(
            f"data.source.background={background}: a colour is needed, such as black, white or '#8080ff'"
        ) from error


def decode(
    content: bytes,
    name: str,
    image_shape: Sequence[int],
    side: int | None = None,
    background: str = "black",
    levels: Levels = 256,
) -> npt.NDArray[Any]:
    """A picture file -> `(C, H, W)`, uint8, or float32 where pixels are real numbers.

    If `side` is given, only the (side, side) pixels in the middle are used. The largest central part that has the
    proportions of the image is cropped and resized, bilinear and antialiased. Of several frames the first is taken.

    Arguments:
        content: The bytes of the file.
        name: Of the file, for messages.
        image_shape: `(C, H, W)`, with C 1 for grey and 3 for colour.
        side: Of the square in the middle; None for the whole picture.
        background: What is seen where the picture is transparent, a colour as Pillow names it.
        levels: A number: bytes. `unit`: real numbers in [0, 1]. None: floats as they are, whole numbers in [0, 1].

    Raises:
        ValueError: If it is not a picture, has more than 8 bits in each channel but bytes are needed, or unpacks to far
            more pixels than a photograph has; the message names the file.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    channels, height, width = image_shape
    try:
        with Image.open(BytesIO(content)) as image:
            if image.width * image.height > MOST_PIXELS or max(image.size) > LONGEST_SIDE:
                raise ValueError(
                    f"{image.width} by {image.height} pixels, at most {MOST_PIXELS:,} and {LONGEST_SIDE:,} a side"
                )
            kind = image.format
            upright = ImageOps.exif_transpose(image)  # turned as the camera was held
            if image.mode.startswith(("I", "F")):
                planes = [_real(upright, kind, background, levels)] * channels
            else:
                shown = _on_background(upright, background).convert("L" if channels == 1 else "RGB")
                planes = [shown] if isinstance(levels, int) else [_as_floats(one, 255) for one in shown.split()]
    except UnidentifiedImageError as error:
        why = "it has no known format" if content else "it is empty"
        raise ValueError(f"{name} cannot be read as a picture: {why}\n  mend it or take it away") from error
    except _DeepError as error:
        raise ValueError(f"{name} cannot be read as a picture: {error}") from error
    except Exception as error:  # PIL raises errors of any type for a bad file
        raise ValueError(f"{name} cannot be read as a picture: {error}\n  mend it or take it away") from error
    across, down = (n if side is None else min(n, side) for n in planes[0].size)
    w = max(1, min(across, round(down * width / height)))
    h = max(1, min(down, round(across * height / width)))
    left, top = round((planes[0].width - w) / 2), round((planes[0].height - h) / 2)
    resized = [
        # Crop first, because `resize(box=...)` also uses pixels outside the box.
        np.asarray(plane.crop((left, top, left + w, top + h)).resize((width, height), Image.Resampling.BILINEAR))
        for plane in planes
    ]
    return np.concatenate([pixels.reshape(height, width, -1) for pixels in resized], axis=2).transpose(2, 0, 1)


class _DeepError(ValueError):
    """More than 8 bits a channel, where the way out is a setting, not another file."""


def _on_background(image: "Image.Image", background: str) -> "Image.Image":
    """The picture without transparency, in whatever form it has it: a channel, a palette, or one colour."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    over = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, background), over).convert("RGB")


def _real(image: "Image.Image", kind: str | None, background: str, levels: Levels) -> "Image.Image":
    """A grey picture of more than 8 bits, as floats: whole numbers of 16 bits in [0, 1], floats as they are."""
    from PIL import ImageColor

    if isinstance(levels, int):
        raise _DeepError(
            f"it has more than 8 bits a channel ({image.mode}), and data.levels={levels} is for bytes\n"
            "  data.levels=unit reads all pictures as real numbers in [0, 1]"
        )
    is_float, is_16_bits = image.mode == "F", image.mode.startswith("I;16") or kind in OF_16_BITS
    if not is_float and not is_16_bits:
        raise _DeepError(
            "its whole numbers have 32 bits: white is not known\n  save it with 16, or as floats in [0, 1]"
        )
    pixels = np.asarray(image).astype(np.float32) / (1 if is_float else 65535)
    if isinstance(clear := image.info.get("transparency"), int):
        pixels[np.asarray(image) == clear] = ImageColor.getcolor(background, "L") / 255  # type: ignore[operator]
    if not np.isfinite(pixels).all():
        raise _DeepError("some pixels are nan or infinite\n  mend it or take it away")
    if levels == "unit" and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise _DeepError(
            f"its pixels lie in [{pixels.min():g}, {pixels.max():g}], and data.levels=unit is for [0, 1]\n"
            "  scale them, or set data.levels=null for any real numbers"
        )
    return _as_floats(pixels, 1)


def _as_floats(pixels: Any, white: int) -> "Image.Image":
    """Numbers `(H, W)` from 0 to white as a picture of floats."""
    from PIL import Image

    return Image.fromarray(np.asarray(pixels, dtype=np.float32) / np.float32(white))
