"""Every `what` on every kind of run: it works, or says why not. The table in docs/generation.md is this test's.

`VAE_EXP_WRITE_DOCS=1 pytest tests/what/test_matrix.py` rewrites it.
"""

import os
import re

import pytest
from helpers.runs import ROOT, SMALL, WHATS, composed, generated

from vae_exp.config import NoMeaningError
from vae_exp.training.job import train

PAGE = ROOT / "docs" / "generation.md"
START, END = "<!-- the matrix, written by tests/what/test_matrix.py -->", "<!-- end of the matrix -->"
RUNS = {
    "vae": (),
    "cvae": ("model=cvae",),
    "beta_vae": ("model=beta_vae",),
    "hvae": ("model=hvae", "model.upper_dims=[2]"),
    "m2": ("model=m2", "data.labelled=8"),
    "ae": ("model=ae",),
    "prior=vamp": ("prior=vamp", "prior.pseudo_inputs=4"),
    "posterior=flow prior=flow": ("posterior=flow", "prior=flow", "prior.hidden_features=[8]"),
    "posterior=bernoulli": ("posterior=bernoulli", "posterior.relaxed=true"),
}
OPTIONS = {"denoise": ("corruption=gaussian",), "inpaint": ("num_images=4", "num_steps=5", "num_samples=10")}


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """What came of each: None where it works, else the reason."""
    root, found = tmp_path_factory.mktemp("matrix"), {}
    for name, options in RUNS.items():
        folder = root / name
        train(composed(*SMALL, *options, "trainer.max_epochs=1"), folder)
        for what in WHATS:
            try:
                generated(folder, what, *OPTIONS.get(what, ()))
                assert list((folder / "images" / what).glob("*.png")), f"{what} of {name} left no picture"
                found[what, name] = None
            except NoMeaningError as error:
                assert not (folder / "images" / what).exists()
                # The same reason for whatever model or prior it is.
                reason = re.sub(r"prior \w+ has", "the prior has", str(error).replace("\n", " "))
                found[what, name] = re.sub(r"^(what=\w+: )?\w+ is given", r"\1the model is given", reason)
    return found


def table(cells):
    """Rows of `what`, columns of runs; a number stands for a reason below."""
    reasons = list(dict.fromkeys(reason for reason in cells.values() if reason))
    lines = ["| what | " + " | ".join(f"`{name}`" for name in RUNS) + " |", "|---" * (len(RUNS) + 1) + "|"]
    for what in WHATS:
        row = [cells[what, name] for name in RUNS]
        marks = " | ".join("yes" if reason is None else f"no ({reasons.index(reason) + 1})" for reason in row)
        lines.append(f"| `{what}` | {marks} |")
    return "\n".join([*lines, "", *(f"{i}. {reason}" for i, reason in enumerate(reasons, start=1))])


@pytest.mark.slow
def test_the_page_says_what_works_and_why_the_rest_does_not(cells):
    text = PAGE.read_text()
    old = re.search(f"{START}\n(.*)\n{END}", text, re.DOTALL)
    if os.environ.get("VAE_EXP_WRITE_DOCS"):
        PAGE.write_text(text.replace(old[0], f"{START}\n{table(cells)}\n{END}"))
    else:
        assert old[1] == table(cells)
