"""The site that Sphinx makes of the documentation."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from house import ROOT

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, made as ``make docs`` makes it: each warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    where = ["-b", "html", "-d", str(folder / "trees"), "docs", str(folder / "html")]
    made = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", *where],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    return folder / "html"


def test_each_link_of_the_site_leads_to_a_place(site: Path) -> None:
    """Pages, headings and files that a page of the site links to are there: nobody has to be online to find out."""
    pages = {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}
    lost = [
        f"{path.relative_to(site)}: {link}"
        for path, page in pages.items()
        for link in page.links
        if not _leads(path, link, pages)
    ]

    assert lost == []
    written = {page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")}
    assert written <= {path.relative_to(site) for path in pages}


def test_figures_of_the_site_have_words(site: Path) -> None:
    """A picture says in words what it shows, for those who cannot see it."""
    mute = [path.name for path in site.rglob("*.html") if re.search(r'<img (?![^>]*alt="[^"]+)', path.read_text())]

    assert mute == []


class Page(HTMLParser):
    """The links of a page, and the places in it that links may lead to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take what a tag links to and the name that it bears."""
        for key, value in attrs:
            if value and key == "id":
                self.places.add(value)
            elif value and key in ("href", "src") and not urlsplit(value).scheme and not value.startswith("//"):
                self.links.add(value)


def _leads(path: Path, link: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target in pages:
        return unquote(parts.fragment) in pages[target].places
    return target.exists()
