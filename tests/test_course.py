"""The pages of the course: what they compute runs, what they link to exists, and they are short."""

import re

import pytest
from helpers.runs import ROOT

PAGES = {path.stem: path for path in sorted((ROOT / "docs" / "course").glob("*.md"))}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_short_and_its_links_lead_somewhere(name):
    text = PAGES[name].read_text()
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert len([line for line in prose.splitlines() if line.strip()]) < 150
    for link in re.findall(r"\]\(([\w./]+)\)", text):
        assert (PAGES[name].parent / link).exists(), link
    if name != "index":
        assert text.count("<summary>Solution</summary>") == 3
        pages = PAGES["index"].read_text() + (ROOT / "docs" / "index.md").read_text()
        assert re.search(rf"^{name}$|<course/{name}>", pages, re.MULTILINE)


def test_a_picture_is_small():
    for path in (ROOT / "docs" / "course").glob("*.png"):
        assert path.stat().st_size < 60_000, path


def test_the_forward_pass_by_hand_is_that_of_the_bench(capsys):
    cells = re.findall(r"```\{code-cell\} ipython3\n(.*?)```", PAGES["first_pass"].read_text(), re.DOTALL)
    known: dict = {}
    exec("\n".join(cells), known)
    assert known["draw"].kl.item() == pytest.approx(known["kl"].item(), abs=1e-6)
    assert known["draw"].recon.item() == pytest.approx(known["recon"].item(), abs=1e-6)
    assert known["sign"].item() == pytest.approx(-known["kl"].item())
    error = known["terms"].std().item() / len(known["terms"]) ** 0.5
    assert known["terms"].mean().item() == pytest.approx(known["kl"].item(), abs=4 * error)
