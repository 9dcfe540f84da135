"""Settings of the site. `python -m sphinx -W docs build/docs` builds it, without internet access."""

import sys
from pathlib import Path

import jaxgd

sys.path.append(str(Path(__file__).parent))

project = "jaxgd"
author = "The jaxgd developers"
version = release = jaxgd.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    *(f"_extensions.{name}" for name in ("pages", "docstrings", "signatures", "links")),
]
root_doc = "index"
# GitHub shows docs/README.md as the index. On the site, _extensions/pages.py makes the sidebar from it.
exclude_patterns = ["README.md"]

html_theme = "furo"
html_title = f"jaxgd {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
pygments_dark_style = "github-dark"
html_copy_source = False
toc_object_entries_show_parents = "hide"
add_function_parentheses = False
python_maximum_signature_line_length = 80

# Give headings the anchors that GitHub uses.
myst_heading_anchors = 4

autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_custom_sections = ["Source"]
