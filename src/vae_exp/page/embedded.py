"""Pictures inside a page, so that it needs no other file."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

from PIL import Image

__all__ = ["data_url"]

LARGE = 400_000  # bytes; a larger picture is compressed again


def data_url(path: Path) -> str:
    """The address that holds a PNG file; a large one as WebP."""
    content, kind = path.read_bytes(), "png"
    if len(content) > LARGE:
        buffer = BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").save(buffer, "WEBP", quality=88)
        content, kind = buffer.getvalue(), "webp"
    return f"data:image/{kind};base64,{b64encode(content).decode()}"
