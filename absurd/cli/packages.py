"""Which packages of Python absurd asks for, and which of them are installed here."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

_WANTED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*(?:\[(?P<extras>[^\]]*)\])?")
_EXTRA = re.compile(r"""extra\s*==\s*["']([\w.-]+)["']""")


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a package asks for."""

    name: str
    extras: frozenset[str]
    """Of what is asked for."""
    only_with: frozenset[str]
    """Extras of the package that asks, any of which brings this; empty if it is always wanted."""


def requirements(package: str) -> Iterator[Requirement]:
    """What an installed package asks for.

    Conditions on Python and system are not looked at: what they leave out is mostly not installed.
    """
    for text in requires(package) or ():
        wanted, _, condition = text.partition(";")
        if found := _WANTED.match(wanted):
            yield Requirement(
                called(found["name"]),
                frozenset(each.strip() for each in (found["extras"] or "").split(",") if each.strip()),
                frozenset(_EXTRA.findall(condition)),
            )


def called(name: str) -> str:
    """A name as package indices write it: in small letters, with hyphens alone."""
    return re.sub(r"[-_.]+", "-", name).lower()


def version_of(package: str) -> str | None:
    """The version that is installed, if one is."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def absent(extra: str) -> list[str]:
    """Packages that an extra of absurd, or one within it, asks for and that are not installed.

    Whether one is recent enough is for pip to say.
    """
    found: dict[str, None] = {}
    for each in requirements("absurd"):
        if extra not in each.only_with:
            continue
        if each.name == "absurd":
            found |= dict.fromkeys(name for within in sorted(each.extras) for name in absent(within))
        elif version_of(each.name) is None:
            found[each.name] = None
    return list(found)


def installed_tree() -> dict[str, set[str]]:
    """Each installed package that absurd may use, itself too, with the names of those that it asks for."""
    tree: dict[str, set[str]] = {}
    every = frozenset(extra for each in requirements("absurd") for extra in each.only_with)
    open_: list[tuple[str, Collection[str]]] = [("absurd", every)]
    looked_at: set[tuple[str, frozenset[str]]] = set()
    while open_:
        package, extras = open_.pop()
        if (package, frozenset(extras)) in looked_at:
            continue
        looked_at.add((package, frozenset(extras)))
        below = tree.setdefault(package, set())
        for each in requirements(package):
            wanted = not each.only_with or each.only_with.intersection(extras)
            if wanted and each.name != package and version_of(each.name) is not None:
                below.add(each.name)
                open_.append((each.name, each.extras))
    return tree
