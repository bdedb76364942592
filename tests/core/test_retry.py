"""When a failed task is tried again, by which rule, and what changes for it."""

from __future__ import annotations

import random
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from absurd import ErrorRule, RetryPolicy
from absurd.errors import InvalidOptionError, TaskNotFoundError
from absurd.workers.child.process import ChildDiedError
from absurd.workers.failures import describe


@given(
    attempt=st.integers(1, 10_000),
    base=st.floats(0, 1e6),
    factor=st.floats(1, 1_000),
    maximum=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
    seed=st.integers(),
)
def test_delays_stay_in_their_band(
    attempt: int, base: float, factor: float, maximum: float, jitter: float, seed: int
) -> None:
    """Whatever the policy: never above the maximum, never further from the plain delay than jitter says (B33)."""
    policy = RetryPolicy(base=base, factor=factor, maximum=maximum, jitter=jitter)
    delay = policy.delay(attempt, random.Random(seed))
    plain = RetryPolicy(base=base, factor=factor, maximum=maximum, jitter=0).delay(attempt)

    assert 0 <= delay <= maximum
    assert plain * (1 - jitter) * 0.999999 <= delay <= plain * (1 + jitter) * 1.000001


def test_backoff_doubles_up_to_its_cap() -> None:
    """A factor of 1 is a fixed delay, the default doubles, a base of 0 is at once; by default none is (B32, B34)."""
    doubling, fixed = RetryPolicy(base=1, maximum=5, jitter=0), RetryPolicy(base=3, factor=1, jitter=0)

    assert [1, 2, 4, 5, 5] == [doubling.delay(n) for n in range(1, 6)]
    assert [3, 3, 3] == [fixed.delay(n) for n in range(1, 4)]
    assert RetryPolicy(base=0).delay(1) == 0
    assert RetryPolicy().delay(1) >= 0.8


class OwnError(KeyError):
    """With bases."""


def died(**details: Any) -> dict[str, Any]:
    return ChildDiedError("the run's process ended", **details).described()


OWN = describe(OwnError("disk /dev/sda1 is full"))
BY_SIGNAL = died(signal="SIGSEGV")
BY_CODE = died(exit_code=7, out_of_memory=False)
STARVED = died(signal="SIGKILL", out_of_memory=True)
UNKNOWN = died(signal="SIGKILL", out_of_memory=None)
CALLED = describe(subprocess.CalledProcessError(137, "convert"))
KILLED = describe(subprocess.CalledProcessError(-9, "convert"))


@pytest.mark.parametrize(
    ("rule", "error", "matches"),
    [
        (ErrorRule(), OWN, True),
        (ErrorRule(exception="OwnError"), OWN, True),
        (ErrorRule(exception=f"{__name__}.OwnError"), OWN, True),
        (ErrorRule(exception="KeyError"), OWN, True),
        (ErrorRule(exception="builtins.LookupError"), OWN, True),
        (ErrorRule(exception="ValueError"), OWN, False),
        (ErrorRule(exception="Error"), OWN, False),
        (ErrorRule(text=r"disk \S+ is full"), OWN, True),
        (ErrorRule(text="network"), OWN, False),
        (ErrorRule(exception="KeyError", text="network"), OWN, False),
        (ErrorRule(signal="SIGSEGV"), BY_SIGNAL, True),
        (ErrorRule(signal="SIGKILL"), BY_SIGNAL, False),
        (ErrorRule(exit_code=7), BY_CODE, True),
        (ErrorRule(exit_code=0), BY_CODE, False),
        (ErrorRule(exit_code=0), OWN, False),
        (ErrorRule(out_of_memory=True), STARVED, True),
        (ErrorRule(out_of_memory=True), UNKNOWN, False),
        (ErrorRule(out_of_memory=False), BY_CODE, True),
        (ErrorRule(out_of_memory=True), describe(MemoryError()), True),
        (ErrorRule(out_of_memory=True), CALLED, True),
        (ErrorRule(exit_code=137), CALLED, True),
        (ErrorRule(signal="SIGKILL"), KILLED, True),
        (ErrorRule(exception="TaskNotFoundError"), describe(TaskNotFoundError("gone")), True),
    ],
)
def test_rules_match_all_that_they_name(rule: ErrorRule, error: dict[str, Any], matches: bool) -> None:
    """Class or base class, qualified or bare; exit code; signal; memory; text."""
    assert matches == rule.matches(error)


def test_the_first_matching_rule_decides() -> None:
    """It brings its own backoff or fixed delay; without one the policy's holds."""
    policy = RetryPolicy(
        base=1,
        jitter=0,
        rules=(
            ErrorRule(text="full", delay=600),
            ErrorRule(exception="KeyError", base=10, factor=3),
            ErrorRule(signal="SIGSEGV", action="reject"),
        ),
    )

    assert policy.rule_for(OWN) is policy.rules[0]
    assert policy.delay_for(policy.rules[0], 3) == 600
    assert policy.delay_for(policy.rule_for(describe(KeyError("x"))), 2) == 30
    assert policy.rule_for(describe(ValueError("x"))) is None
    assert policy.delay_for(None, 3) == 4


def test_rules_are_stored_and_come_back() -> None:
    """As JSON that holds only what they name; rules may be given as a list."""
    rule = ErrorRule(out_of_memory=True, memory_factor=2, memory_max_gib=64, queue="large")
    policy = RetryPolicy(rules=[rule])  # type: ignore[arg-type]

    assert policy.to_json()["rules"] == [
        {"out_of_memory": True, "action": "retry", "memory_factor": 2, "memory_max_gib": 64, "queue": "large"}
    ]
    assert RetryPolicy.from_json(policy.to_json()) == policy
    assert rule.amend() == {"queue": "large", "memory_factor": 2, "memory_max_gib": 64}
    assert "rules" not in RetryPolicy().to_json()


@pytest.mark.parametrize(
    ("rule", "part"),
    [
        ({"action": "explode"}, "retry or reject"),
        ({"text": "("}, "no regular expression"),
        ({"exit_code": 300}, "exit_code"),
        ({"exit_code": True}, "exit_code"),
        ({"delay": -1}, "delay"),
        ({"factor": 0.5}, "factor"),
        ({"memory_max_gib": 3}, "memory_factor"),
        ({"exception": 7}, "exception"),
        ({"queue": "no such"}, "no queue"),
        ({"colour": "red"}, "colour"),
        ("KeyError", "object"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: Any, part: str) -> None:
    """With the name and the value."""
    with pytest.raises(InvalidOptionError, match=part):
        RetryPolicy.from_json({"rules": [rule]})
