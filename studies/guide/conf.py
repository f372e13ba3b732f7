"""Settings of the guide. Build it with ``sphinx-build -E -W --keep-going -b html studies/guide OUT``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # of generated.py

import generated
from sphinx.application import Sphinx

project = "gitdist"
author = "the gitdist authors"
copyright = f"2026 {author}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["__pycache__"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
add_module_names = False
python_use_unqualified_type_names = True

highlight_language = "none"  # of blocks without a language

html_theme = "furo"
html_title = "gitdist"
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}
html_copy_source = False
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """Fill in what pages take from the code and from other files."""
    app.connect("source-read", _read)


def _read(app: Sphinx, page: str, source: list[str]) -> None:
    source[0] = generated.fill_in(page, source[0])
