"""What the words on a page mean: the entries of docs/glossary.md."""

import re
from pathlib import Path

from markupsafe import Markup, escape

__all__ = ["glossary"]

_here = Path(__file__).parent / "glossary.md"  # in the wheel
GLOSSARY = _here if _here.exists() else _here.parents[3] / "docs" / "glossary.md"


def glossary() -> list[tuple[str, Markup]]:
    """Each word with its meaning, as HTML."""
    entries = re.findall(r"^(\S.*)\n: (.+(?:\n  .+)*)", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
    return [(word, _html(" ".join(meaning.split()))) for word, meaning in entries]


def _html(text: str) -> Markup:
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704
