"""How Sphinx makes the site of these pages: ``make docs`` writes it to build/site, and no warning is let pass."""

from __future__ import annotations

import re
from importlib.metadata import version as version_of
from pathlib import PurePosixPath

from sphinx.application import Sphinx

project = "absurd"
author = "The absurd developers"
project_copyright = author
version = release = version_of("absurd")

extensions = ["myst_parser", "sphinx.ext.mathjax", "sphinxcontrib.mermaid"]
exclude_patterns = ["executors/export", "operations/deploy"]
nitpicky = True

# The pages are read on a forge as well: they link to files, to headings by the forge's own names, and draw in mermaid.
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
suppress_warnings = ["misc.highlighting_failure"]  # what a program prints, in the blocks of consoles, is no language

html_theme = "pydata_sphinx_theme"
html_title = "absurd"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "navigation_with_keys": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

LINK = re.compile(r"\]\((?P<target>[\w/-]+)\.md[#)]")
FOLDERS = ["quickstart", "concepts/index", "howto/index", "executors/index", "operations/index", "reference/index"]


def setup(app: Sphinx) -> None:
    """Give each index the contents that the sidebar shows."""
    app.connect("source-read", _add_contents)


def _add_contents(_: Sphinx, docname: str, source: list[str]) -> None:
    """End an index with the table of the pages that it names, in its order.

    A forge would show the directive as a block of code, so the pages do without.  A page that its index does not name
    is a warning, and so an error.
    """
    place = PurePosixPath(docname)
    if place.name != "index":
        return
    if docname == "index":
        entries = [*FOLDERS, "glossary", "changelog"]
    else:
        entries = list(dict.fromkeys(link["target"] for link in LINK.finditer(source[0])))
    source[0] += "\n```{toctree}\n:hidden:\n\n" + "\n".join(entries) + "\n```\n"
