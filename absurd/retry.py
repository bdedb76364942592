"""Whether and when a failed task is tried again, and what changes for it (pure)."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from absurd.errors import InvalidOptionError

Action = Literal["retry", "reject"]

LONGEST_DELAY = 31_536_000.0
_QUEUE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}")  # as in schema/sql/20_queues.sql


def _check(name: str, value: Any, low: float, high: float) -> None:
    """Raise InvalidOptionError unless `value` is a number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidOptionError(f"{name} is {value!r}; it must be a number from {low} to {high}", option=name)


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """What to do about some errors.  All that is named must match; a rule that names nothing matches every error."""

    exception: str | None = None
    """Name of an exception's class or of a base class of it, with its module or bare."""
    exit_code: int | None = None
    """With which the run's process, or a program it called, ended."""
    signal: str | None = None
    """That ended it, as in SIGSEGV."""
    out_of_memory: bool | None = None
    """True: memory ran out, as far as that can be told; False: something else."""
    text: str | None = None
    """A regular expression that is found in the message."""
    action: Action = "retry"
    """"reject": straight to the dead letters."""
    delay: float | None = None
    """Fixed delay before the next attempt, in seconds, in place of the policy's backoff."""
    base: float | None = None
    """`base`, `factor` and `maximum`: as in the policy, for these errors."""
    factor: float | None = None
    maximum: float | None = None
    memory_factor: float | None = None
    """By how much ``needs.memory_gib`` grows (from 1 if the task names none)."""
    memory_max_gib: float | None = None
    """To which it grows at most."""
    queue: str | None = None
    """On which queue the task is tried again, and stays."""

    def __post_init__(self) -> None:
        for name, high in (
            ("exit_code", 255),
            ("delay", LONGEST_DELAY),
            ("base", LONGEST_DELAY),
            ("maximum", LONGEST_DELAY),
        ):
            if getattr(self, name) is not None:
                _check(f"retry.rules.{name}", getattr(self, name), 0, high)
        for name in ("factor", "memory_factor"):
            if getattr(self, name) is not None:
                _check(f"retry.rules.{name}", getattr(self, name), 1, 1_000)
        if self.memory_max_gib is not None:
            _check("retry.rules.memory_max_gib", self.memory_max_gib, 0, 1_000_000)
        for name in ("exception", "signal", "text", "queue"):
            if not isinstance(getattr(self, name), str | None):
                raise InvalidOptionError(
                    f"retry.rules.{name} is {getattr(self, name)!r}; it must be a text", option=f"retry.rules.{name}"
                )
        if self.queue is not None and not _QUEUE.fullmatch(self.queue):
            raise InvalidOptionError(
                f"retry.rules.queue is {self.queue!r}, which no queue may be called", option="retry.rules.queue"
            )
        if self.action not in get_args(Action):
            raise InvalidOptionError(
                f"retry.rules.action is {self.action!r}; it must be retry or reject", option="retry.rules.action"
            )
        if self.memory_max_gib is not None and self.memory_factor is None:
            raise InvalidOptionError(
                "retry.rules.memory_max_gib limits memory_factor, but there is none",
                option="retry.rules.memory_max_gib",
            )
        try:
            re.compile(self.text or "")
        except re.error as error:
            raise InvalidOptionError(
                f"retry.rules.text is {self.text!r}, which is no regular expression: {error}", option="retry.rules.text"
            ) from None

    def matches(self, error: Mapping[str, Any]) -> bool:
        """Whether the rule is for `error`, as it is stored with a run."""
        names = {str(each) for each in error.get("classes") or (error.get("type"),)}
        return (
            (self.exception is None or self.exception in names | {each.rpartition(".")[2] for each in names})
            and (self.exit_code is None or self.exit_code == error.get("exit_code"))
            and (self.signal is None or self.signal == error.get("signal"))
            and (self.out_of_memory is None or self.out_of_memory == bool(error.get("out_of_memory")))
            and (self.text is None or re.search(self.text, str(error.get("message") or "")) is not None)
        )

    def amend(self) -> dict[str, Any] | None:
        """What changes in the task before its next attempt."""
        changes = {"queue": self.queue, "memory_factor": self.memory_factor, "memory_max_gib": self.memory_max_gib}
        return {name: value for name, value in changes.items() if value is not None} or None

    def to_json(self) -> dict[str, Any]:
        """The rule as it is stored: only what it names."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> ErrorRule:
        """The rule that `to_json` stored; unknown keys are refused with their name."""
        if not isinstance(stored, Mapping):
            raise InvalidOptionError(f"retry.rules holds {stored!r}; a rule is an object", option="retry.rules")
        _refuse_unknown("retry.rules", set(stored) - set(cls.__dataclass_fields__))
        return cls(**stored)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter.

    The delay after failed attempt n (counted from 1) is ``min(maximum, base * factor ** (n - 1))``
    seconds, then multiplied by a random number in ``[1 - jitter, 1 + jitter]`` and held to
    `maximum` again.
    """

    max_attempts: int = 5
    """How many attempts a task has in all; 1 means no retry."""
    base: float = 1.0
    """Delay after the first failed attempt, in seconds."""
    factor: float = 2.0
    """By how much the delay grows from one attempt to the next; 1 keeps it fixed."""
    maximum: float = 300.0
    """The longest delay, in seconds."""
    jitter: float = 0.2
    """Share of the delay that chance may add or take, 0 to 1."""
    rules: tuple[ErrorRule, ...] = ()
    """What to do about some errors; the first that matches decides."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rules", tuple(self.rules))
        for name, low, high in (
            ("max_attempts", 0, 32_767),
            ("base", 0.0, LONGEST_DELAY),
            ("factor", 1.0, 1_000.0),
            ("maximum", 0.0, LONGEST_DELAY),
            ("jitter", 0.0, 1.0),
        ):
            _check(f"retry.{name}", getattr(self, name), low, high)

    def delay(self, attempt: int, chance: random.Random | None = None) -> float:
        """Seconds to wait after failed attempt `attempt` (1 for the first)."""
        try:
            plain = self.base * self.factor ** max(0, attempt - 1)
        except OverflowError:  # far past any maximum
            plain = self.maximum
        spread = (chance or random).uniform(1 - self.jitter, 1 + self.jitter)
        return min(self.maximum, min(self.maximum, plain) * spread)

    def rule_for(self, error: Mapping[str, Any]) -> ErrorRule | None:
        """The first rule that matches `error`, as it is stored with a run."""
        return next((rule for rule in self.rules if rule.matches(error)), None)

    def delay_for(self, rule: ErrorRule | None, attempt: int, chance: random.Random | None = None) -> float:
        """As `delay`, with what `rule` says in place of the policy."""
        if rule is None:
            return self.delay(attempt, chance)
        if rule.delay is not None:
            return rule.delay
        own = replace(
            self,
            base=self.base if rule.base is None else rule.base,
            factor=self.factor if rule.factor is None else rule.factor,
            maximum=self.maximum if rule.maximum is None else rule.maximum,
        )
        return own.delay(attempt, chance)

    def to_json(self) -> dict[str, Any]:
        """The policy as it is stored with a task."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if not self.rules:
            del fields["rules"]
            return fields
        return fields | {"rules": [rule.to_json() for rule in self.rules]}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> RetryPolicy:
        """The policy that `to_json` stored; unknown keys are refused with their name."""
        _refuse_unknown("retry", set(stored) - set(cls.__dataclass_fields__))
        rules = stored.get("rules") or ()
        if isinstance(rules, str | Mapping):
            raise InvalidOptionError(f"retry.rules is {rules!r}; it must be a list of rules", option="retry.rules")
        return cls(**dict(stored) | {"rules": tuple(ErrorRule.from_json(each) for each in rules)})


def _refuse_unknown(where: str, unknown: set[str]) -> None:
    if unknown:
        raise InvalidOptionError(f"{where} has unknown keys: {', '.join(sorted(unknown))}", option=where)
