"""Pictures inside a page, so that it needs no other file."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

from PIL import Image

from vae_exp.records import say

__all__ = ["data_url", "picture"]

LARGE = 400_000  # bytes; a larger picture is compressed again


MOST = 100_000_000  # pixels of a picture that is decoded


def picture(path: Path) -> tuple[tuple[int, int], str | None] | None:
    """The size of a picture and who made it; None if it is damaged, of which one line is logged."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST:
                raise ValueError(f"{image.width} by {image.height} pixels are more than a page shows")
            image.load()
            return image.size, image.info.get("Source")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        say(f"{path} is damaged and is left out: {str(error) or type(error).__name__}")
        return None


def data_url(path: Path) -> str:
    """The address that holds a PNG file; a large one as WebP."""
    content, kind = path.read_bytes(), "png"
    if len(content) > LARGE:
        buffer = BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").save(buffer, "WEBP", quality=88)
        content, kind = buffer.getvalue(), "webp"
    return f"data:image/{kind};base64,{b64encode(content).decode()}"
