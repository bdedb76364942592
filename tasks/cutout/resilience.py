"""Going on when something fails: from source to source, and with less where not all can be had.

Retries are in `retry`, breakers in `circuit`; both are here by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from absurd.errors import ConfigurationError, InvalidInputError, NotFoundError
from absurd.tasks.cutout.circuit import CircuitBreaker, State, Transition
from absurd.tasks.cutout.config import ButlerConfig
from absurd.tasks.cutout.errors import (
    AllSourcesFailedError,
    BandNotFoundError,
    CutoutExtractionError,
    NotOnSkyError,
    PlaneNotFoundError,
    RippleError,
    SourceNotFoundError,
)
from absurd.tasks.cutout.request import IMAGE
from absurd.tasks.cutout.retry import (
    ONCE,
    PROGRAMMING,
    Deadline,
    RetryPolicy,
    call_within,
    is_transient,
    policies,
)

__all__ = [
    "PROGRAMMING", "Answer", "Ask", "CircuitBreaker", "Deadline", "Fallback", "LeftOut", "Reduced", "RetryPolicy",
    "State", "Transition", "breaker_for", "call_within", "is_away", "is_transient", "may_be_elsewhere",
    "none_answered", "policies", "policies_for", "reduce_to",
]  # fmt: skip

S = TypeVar("S")
T = TypeVar("T")
B = TypeVar("B", bound=str | None)

# Fallback -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What one of several sources said."""

    value: T
    source: str
    """Which one."""
    errors: Mapping[str, Exception] = field(default_factory=dict)
    """Of the sources that were asked before it, by name, in order."""

    @property
    def told(self) -> str:
        """In words, for a log or a manifest; empty if the first source answered."""
        return f"{self.source} answered in place of {_told(self.errors)}" if self.errors else ""


class Ask(Protocol):
    """Calls an operation, as often as that is worth while; within the time-out of an attempt, unless told otherwise."""

    def __call__(self, operation: Callable[[], T], /, *, timed: bool = True) -> T: ...


class Fallback(Generic[S]):
    """Sources in order of preference; each is asked when those before it have failed.

    Each has a breaker, so that one that is away is passed over without waiting, and `retry` for its errors.  Where that
    has a time-out the calls run in threads of their own, for no other way leaves a source that hangs; the breaker
    bounds how many such threads there can be.  Those in `untimed`, by name, have none.
    """

    def __init__(
        self,
        sources: Mapping[str, S],
        *,
        breakers: Mapping[str, CircuitBreaker] | None = None,
        retry: RetryPolicy = ONCE,
        untimed: Collection[str] = (),
    ) -> None:
        self.untimed = frozenset(untimed)
        self.sources = dict(sources)
        self.breakers = {name: (breakers or {}).get(name) or CircuitBreaker(name) for name in sources}
        self.retry = retry

    def call(self, operation: Callable[[S], T], *, retry: RetryPolicy | None = None) -> Answer[T]:
        """What the first source gives that does not fail.

        An error of the program or of the request is raised at once, for it would be the same everywhere.  When all
        fail, SourceNotFoundError if none has it, else AllSourcesFailedError, each with all errors in
        ``details["errors"]``; where there is one source only, its own error.
        """
        return self.first(lambda name: self.ask(name, operation, retry=retry))

    def first(self, operation: Callable[[str], T]) -> Answer[T]:
        """As `call`, of an operation that itself asks the source of a name, once or often: see `asking`."""
        errors: dict[str, Exception] = {}
        for name in self.sources:
            try:
                value = operation(name)
            except Exception as error:
                if len(self.sources) == 1 or not may_be_elsewhere(error):
                    raise
                errors[name] = error
            else:
                return Answer(value, name, errors)
        raise none_answered(errors)

    def ask(self, name: str, operation: Callable[[S], T], *, retry: RetryPolicy | None = None, timed: bool = True) -> T:
        """What one source gives, through its breaker, with retries.  Raises what it raises at last."""
        source = self.sources[name]

        def attempt(deadline: Deadline) -> T:
            with self.breakers[name].guard():
                if deadline.seconds is None or not timed or name in self.untimed:
                    return operation(source)
                return call_within(deadline.seconds, lambda: operation(source), f"an answer of {name}")

        return (retry or self.retry).call(attempt)

    def asking(self, name: str) -> Ask:
        """As `ask`, of operations that know the source."""

        def ask(operation: Callable[[], T], /, *, timed: bool = True) -> T:
            return self.ask(name, lambda _: operation(), timed=timed)

        return ask


def may_be_elsewhere(error: Exception) -> bool:
    """Whether another source may have what failed so: it is no error of the program, nor of the request."""
    return isinstance(error, NotOnSkyError) or not isinstance(error, (*PROGRAMMING, InvalidInputError))


def is_away(error: Exception) -> bool:
    """Whether a source did not answer, for a reason of its own: not its configuration's, nor another program's."""
    return isinstance(error, RippleError) and not isinstance(error, ConfigurationError) and may_be_elsewhere(error)


def none_answered(errors: Mapping[str, Exception]) -> RippleError:
    """The error of a request that no source answered, from that of each by name."""
    if not errors:
        return SourceNotFoundError("there is no source to ask", advice="name one")
    kind = SourceNotFoundError if all(isinstance(each, NotFoundError) for each in errors.values()) else None
    made = (kind or AllSourcesFailedError)(
        f"none of {len(errors)} sources answered: {_told(errors)}",
        errors={name: str(error) for name, error in errors.items()},
    )
    made.__cause__ = list(errors.values())[-1]
    return made


def _told(errors: Mapping[str, Exception]) -> str:
    return "; ".join(f"{name} ({error})" for name, error in errors.items())


def breaker_for(
    name: str, config: ButlerConfig, listener: Callable[[Transition], object] | None = None
) -> CircuitBreaker:
    """The breaker of the source `name`, as a configuration asks for it."""
    return CircuitBreaker(
        name,
        threshold=config.failure_threshold,
        cool_down=config.cool_down,
        slow_after=config.slow_after,
        listener=listener,
    )


def policies_for(config: ButlerConfig) -> Mapping[str, RetryPolicy]:
    """A retry policy for each operation, as a configuration asks for them; see `retry.policies`."""
    return policies(config.retry_attempts, config.retry_delay, config.timeout)


# Reduced mode -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A band, or a plane in all bands, that is not there, and why."""

    band: str | None
    plane: str | None
    reason: str
    failed: bool = False
    """Whether it should be there, and could not be read."""

    def __str__(self) -> str:
        what = f"band {self.band}" if self.plane is None else f"plane {self.plane}"
        return f"{what} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Reduced:
    """What can be had of what was asked for, in the order asked."""

    bands: tuple[str | None, ...]
    planes: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def told(self) -> str:
        """In words, for a manifest; empty if nothing was left out."""
        return f"without {'; '.join(map(str, self.left_out))}" if self.left_out else ""


def reduce_to(
    bands: Sequence[B],
    planes: Sequence[str],
    failed: Mapping[tuple[B, str], Exception | str],
    *,
    needed_bands: Iterable[B] = (),
    needed_planes: Iterable[str] = (IMAGE,),
) -> Reduced:
    """Decide what is left when some planes of some bands, `failed` by (band, plane), cannot be had.

    What is left is complete, every plane in every band, so that it makes one array.  A band goes when one of its
    needed planes failed; then a plane that failed in a remaining band goes from all of them, for more bands are worth
    more than more planes.  Raises CutoutExtractionError when a needed band would have to go, BandNotFoundError when
    none would be left; both say what failed.
    """
    needed = set(needed_planes)
    left_out: list[LeftOut] = []
    kept: list[B] = []
    for band in bands:
        why = next((failed[band, plane] for plane in planes if plane in needed and (band, plane) in failed), None)
        if why is None:
            kept.append(band)
        else:
            left_out.append(LeftOut(band, None, str(why), _has_failed(why)))
    lost = [each for each in left_out if each.band in set(needed_bands)]
    if lost or not kept:
        error: type[RippleError] = CutoutExtractionError if lost else BandNotFoundError
        raise error(
            f"nothing can be given without {'; '.join(map(str, lost or left_out)) or 'any band'}",
            failed={f"{band}.{plane}": str(why) for (band, plane), why in failed.items()},
        )
    whole: list[str] = []
    for plane in planes:
        missing = {band: failed[band, plane] for band in kept if (band, plane) in failed}
        if not missing:
            whole.append(plane)
        else:
            band, why = next(iter(missing.items()))
            left_out.append(LeftOut(None, plane, f"{why}, in band {band}", any(map(_has_failed, missing.values()))))
    return Reduced(tuple(kept), tuple(whole), tuple(left_out))


def _has_failed(why: Exception | str) -> bool:
    return isinstance(why, Exception) and not isinstance(why, PlaneNotFoundError)
