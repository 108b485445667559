"""Formulas of the site as pictures (SVG) in the text: no script, no network, no font on the reader's machine."""

from html import escape
from typing import Any

import ziamath
from docutils import nodes

SIZE = 17  # pixels, beside text of 16


def _inline(writer: Any, node: nodes.math) -> None:
    formula = ziamath.Latex(node.astext(), size=SIZE, color="currentColor", inline=True)
    style = f"vertical-align: {formula.getyofst():.2f}px"
    writer.body.append(f'<span class="math" title="{escape(node.astext())}" style="{style}">{formula.svg()}</span>')
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    formula = ziamath.Latex(node.astext(), size=SIZE, color="currentColor")
    writer.body.append(f'<div class="math" title="{escape(node.astext())}">{formula.svg()}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls."""
    ziamath.config.svg2 = False  # no symbols by name, which several formulas of a page would share
    app.add_html_math_renderer("formulas", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
