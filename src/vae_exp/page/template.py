"""The templates of pages, filled in."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

__all__ = ["render"]


def render(template: str, folder: Path = Path(__file__).parent, /, **values: Any) -> str:
    """The HTML of a template in which every value is text, and everything that it names is known.

    Arguments:
        template: A file of `folder` or of this one.
        folder: Where else templates lie.
        values: What it names.
    """
    templates = Environment(
        loader=FileSystemLoader([folder, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(template).render(**values)
