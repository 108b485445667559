"""docs/: every command line is one that the program accepts. What they give is tested with each page."""

import re
import shlex

import pytest
from helpers.runs import ROOT, composed, composed_on

# docs/results.md has a test of its own; what a user writes is not there: my_conf/, files, runs, a set of the Hub.
PAGES = [
    page
    for page in sorted((ROOT / "docs").glob("**/*.md"))
    if page.name != "results.md" and not {"_build", "options"} & set(page.parts)
]
LINE = re.compile(r"^python -m vae_exp(?:\.(\w+))? ((?:.*\\\n)*.*)$", re.MULTILINE)
WITHOUT_CONFIG = ("compare", "sync")  # of one run
OF_THE_USER = ("--config-dir", "data=hub", "data=table", "resume=")


def lines():
    for page in PAGES:
        for name, words in LINE.findall(page.read_text()):
            said = shlex.split(words.replace("\\\n", " "), comments=True)
            if name not in WITHOUT_CONFIG and not any(word.startswith(OF_THE_USER) for word in said):
                yield name or "train", tuple(word for word in said if word != "-m")


LINES = sorted(set(lines()))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "words"), LINES, ids=[f"{name} {' '.join(words)}" for name, words in LINES])
def test_a_command_of_the_docs_composes(name, words, tmp_path):
    if name == "train":
        one = [word for word in words if "range(" not in word and "interval(" not in word]
        composed(*[re.sub(r",(?![^\[({]*[\])}]).*", "", word) for word in one])  # of a sweep the first
    else:
        assert composed_on(tmp_path, name, *words)


def test_the_pages_have_commands():
    assert len(LINES) > 60
