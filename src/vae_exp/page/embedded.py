"""Pictures inside a page, so that it needs no other file."""

import json
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vae_exp.records import say

__all__ = ["data_url", "picture"]

LARGE = 400_000  # bytes; a larger picture is compressed again
MOST = 100_000_000  # pixels of a picture that is decoded


def picture(path: Path) -> dict[str, Any] | None:
    """What is known of a picture; None if it is damaged, of which one line is logged.

    Its `size`, who made it (`by`), whether it `is_chart`, the lines of its `title`, and of a grid of images `tiles`:
    the address of these without what is written around them, their size, `rows` and `heads`.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST:
                raise ValueError(f"{image.width} by {image.height} pixels are more than a page shows")
            image.load()
            about = _described(image.info.get("Description", ""))
            tiles = _tiles(image, about) if "box" in about else None
            return {
                "size": image.size,
                "by": image.info.get("Source"),
                "is_chart": about.get("is_chart") is True,
                "title": str(about.get("title", "")).splitlines(),
                "tiles": tiles,
            }
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        say(f"{path} is damaged and is left out: {str(error) or type(error).__name__}")
        return None


def data_url(path: Path) -> str:
    """The address that holds a PNG file; a large one as WebP."""
    content = path.read_bytes()
    if len(content) > LARGE:
        with Image.open(path) as image:
            return _compressed(image)
    return _address(content, "png")


def _described(text: str) -> dict[str, Any]:
    """What `vae_exp.plots` wrote into a picture; nothing if somebody else made it."""
    try:
        about = json.loads(text)
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}


def _tiles(image: Image.Image, about: dict[str, Any]) -> dict[str, Any] | None:
    """The images of a grid, pixel for pixel as before the picture enlarged them; None if that is not known."""
    try:
        (left, top, right, bottom), (width, height) = map(float, about["box"]), map(int, about["size"])
        rows, heads = ([str(label) for label in about[name]] for name in ("rows", "heads"))
    except (KeyError, TypeError, ValueError):
        return None
    is_inside = 0 <= left < right <= image.width + 1 and 0 <= top < bottom <= image.height + 1
    if not (is_inside and 0 < width <= right - left + 1 and 0 < height <= bottom - top + 1):
        return None
    across = (left + (np.arange(width) + 0.5) * (right - left) / width).astype(int)
    down = (top + (np.arange(height) + 0.5) * (bottom - top) / height).astype(int)
    pixels = np.asarray(image.convert("RGB"))[np.ix_(down, across)]
    is_grey = (pixels == pixels[..., :1]).all()
    grid = Image.fromarray(pixels[..., 0] if is_grey else pixels)
    file = BytesIO()
    grid.save(file, "PNG", optimize=True)
    source = _compressed(grid) if len(file.getvalue()) > LARGE else _address(file.getvalue(), "png")
    return {"source": source, "size": (width, height), "rows": rows, "heads": heads}


def _compressed(image: Image.Image) -> str:
    file = BytesIO()
    image.convert("RGB").save(file, "WEBP", quality=88)
    return _address(file.getvalue(), "webp")


def _address(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"
