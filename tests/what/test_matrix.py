"""Every `what` on every kind of run: it works, or says why not. The table in docs/generation.md is this test's.

`VAE_EXP_WRITE_DOCS=1 pytest tests/what/test_matrix.py` rewrites it.
"""

import os
import re

import pytest
from helpers.runs import OF_PICTURES, ROOT, SMALL, composed, generated

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
OTHERS = {  # and what has no meaning for them
    "latent_dim=1": {"manifold", "classes", "pseudo_inputs"},
    "data.image_shape=[3,6,8]": {"classes", "pseudo_inputs"},
    "model=cvae prior=flow": {"pseudo_inputs"},
    "model=cvae prior=vamp prior.pseudo_inputs=10": {"manifold"},
    "posterior=full_normal": {"classes", "pseudo_inputs"},
    "posterior=categorical posterior.relaxed=true latent_dim=6 posterior.categories=3": {
        "interpolation", "manifold", "classes", "edit", "pseudo_inputs",
    },
    "data=linear_gaussian data.train_size=48 data.source.val_size=16 data.batch_size=16": {
        "classes", "edit", "pseudo_inputs",
    },
}  # fmt: skip
OPTIONS = {"denoise": ("corruption=gaussian",), "inpaint": ("num_images=4", "num_steps=5", "num_samples=10")}


def made_of(folder, *options):
    """What comes of each `what` on a run: None where it works, else the reason."""
    small = [option for option in SMALL if "data=" not in " ".join(options) or not option.startswith("data")]
    train(composed(*small, *options, "trainer.max_epochs=1"), folder)
    found = {}
    for what in OF_PICTURES:
        try:
            generated(folder, what, *OPTIONS.get(what, ()))
            assert list((folder / "images" / what).glob("*.png")), f"{what} left no picture"
            assert "NaN" not in (folder / "images" / what / f"{what}.json").read_text()
            found[what] = None
        except NoMeaningError as error:
            assert not (folder / "images" / what).exists()
            # The same reason for whatever model or prior it is.
            reason = re.sub(r"prior \w+ has", "the prior has", str(error).replace("\n", " "))
            found[what] = re.sub(r"^(what=\w+: )?\w+ is given", r"\1the model is given", reason)
    return found


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """What comes of each `what` and run."""
    root = tmp_path_factory.mktemp("matrix")
    found = {name: made_of(root / name, *options) for name, options in RUNS.items()}
    return {(what, name): reason for name, reasons in found.items() for what, reason in reasons.items()}


def table(cells):
    """Rows of `what`, columns of runs; a number stands for a reason below."""
    reasons = list(dict.fromkeys(reason for reason in cells.values() if reason))
    lines = ["| what | " + " | ".join(f"`{name}`" for name in RUNS) + " |", "|---" * (len(RUNS) + 1) + "|"]
    for what in OF_PICTURES:
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


@pytest.mark.slow
@pytest.mark.parametrize(("options", "refused"), OTHERS.items())
def test_other_runs_have_all_that_has_a_meaning(tmp_path, options, refused):
    found = made_of(tmp_path / "run", *options.split())
    assert {what for what, reason in found.items() if reason} == refused
