"""Settings of Sphinx: `sphinx-build -W -n --keep-going docs build/docs` makes the site."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # of the extensions beside this file

import convkit

project = "convkit"
author = "the convkit authors"
copyright = author
version = release = convkit.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "docstrings",
    "pictures",
]
html_theme = "furo"
html_title = f"convkit {version}"
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
pygments_style = "friendly"
default_role = "code"  # `x` in docstrings is code

autosummary_generate = False  # tables only: a page of the reference holds a whole module
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # a method without words of its own is in its base class
autodoc_typehints = "none"  # docstrings tell shapes and ranges, which types do not
autodoc_preserve_defaults = True
nitpick_ignore = [("py:class", "numpy.ndarray")]  # in annotations of attributes; NumPy's own site
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
