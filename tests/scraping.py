"""Pages of Prometheus' text format, read strictly."""

from __future__ import annotations

import re
from urllib.request import urlopen

Found = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Values by the sample's name and labels."""

_SAMPLE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"(?:,|$)')


def parse(page: str) -> Found:
    """All samples; each stands below the TYPE of its metric, and none twice."""
    found: Found = {}
    metric = ""
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            metric = line.split()[2]
        elif not line.startswith("# HELP "):
            match = _SAMPLE.fullmatch(line)
            assert match, line
            name, labels, value = match.groups()
            assert name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") == metric, line
            pairs = [(key, _plain(text)) for key, text in _LABEL.findall(labels or "")]
            assert "".join(_LABEL.sub("", labels or "")) == "", line
            key = name, frozenset(pairs)
            assert key not in found, line
            found[key] = float(value)
    return found


def value(found: Found, name: str, **labels: str) -> float:
    """The value of one sample."""
    return found[name, frozenset(labels.items())]


def scrape(url: str) -> Found:
    """What a daemon tells."""
    with urlopen(url, timeout=60) as answer:  # noqa: S310 - of a daemon that the test has started
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return parse(answer.read().decode())


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], text)
