"""The site: `make docs` builds docs/_build/html/index.html from this folder, docstrings and the comments in `conf/`."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from options import write_options  # noqa: E402

import vae_exp  # noqa: E402

project = "vae_exp"
author = "the authors of vae_exp"
release = version = vae_exp.__version__

extensions = [
    "myst_nb",  # Markdown, and pages that are notebooks
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "formulas",
    "sphinx_design",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

html_theme = "furo"
html_title = "vae_exp"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "formulas"

default_role = "code"  # `x` in a docstring
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give types by shapes
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False

write_options(HERE / "reference" / "options")
