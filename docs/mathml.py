"""Formulas of the site as MathML, which browsers draw themselves: no script, no network."""

from typing import Any

from latex2mathml.converter import convert


def _inline(writer: Any, node: Any) -> None:
    writer.body.append(convert(node.astext()))


def _block(writer: Any, node: Any) -> None:
    writer.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')


def _done(writer: Any, node: Any) -> None:
    pass


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_html_math_renderer("mathml", (_inline, _done), (_block, _done))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
