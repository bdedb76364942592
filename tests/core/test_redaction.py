"""Values under names that tell of a secret: in text, in errors of executors, in what an executor logs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from memory_port import MemoryPort, claim_of
from pydantic import BaseModel, Field, field_validator
from structlog.typing import Processor

from absurd.context import RunContext, run_here
from absurd.errors import InvalidParamsError
from absurd.executor import Executor
from absurd.outcome import Cancel, Cancelled, Failed
from absurd.redaction import SECRET_KEYS, hide, hide_in_lines, hide_in_text, secrets_in
from absurd.retry import RetryPolicy
from absurd.telemetry import redact, redact_exception
from absurd.workers.runs.execution import Defaults, run_sync

DEFAULTS = Defaults(RetryPolicy(max_attempts=1), None)
SECRETS = {"api_token": "geheim 42", "deep": [{"password": "geheim'43"}], "band": "g"}


class Checked(BaseModel):
    """Params whose validation quotes its input."""

    api_token: str = Field(max_length=3)
    headers: dict[str, int] = {}

    @field_validator("api_token", mode="before")
    @classmethod
    def _quoting(cls, value: str) -> str:
        if "@" in value:
            raise ValueError(f"{value} is not right")
        return value


@dataclass
class Holder:
    """An object that a log line may hold."""

    user: str
    password: str


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("token='geheim 42' band=g", "token='***' band=g"),
        ('{"api_key": "ge\\"heim", "n": 1}', '{"api_key": "***", "n": 1}'),
        ("Authorization: Bearer geheim.x\nnext", "Authorization: ***\nnext"),
        ("credentials={'user': 'ada', 'k': 'geheim'} rest", "credentials=*** rest"),
        ("my_token=geheim, next", "my_token=***, next"),
        ("postgresql://ada:geheim@h/d", "postgresql://ada:***@h/d"),
        ("the token was bad", "the token was bad"),
        ("nothing here", "nothing here"),
    ],
)
def test_text(text: str, hidden: str) -> None:
    """What stands behind a secret's name in a text is hidden, and nothing else."""
    assert hidden == hide_in_text(text)
    assert f"a\n{hidden}\nb" == hide_in_lines(f"a\n{text}\nb")


@pytest.mark.parametrize("word", SECRET_KEYS.pattern.replace("(or)?", "or").replace("?", "").split("|"))
def test_many_lines(word: str) -> None:
    """However many there are: behind each word that tells of a secret it is hidden, in capitals too."""
    filler = "2027-01-31 all is well\n" * 1000
    for name in (word, word.upper(), word.replace("_", "")):
        assert f"{filler}{name}=***\n{filler}" == hide_in_lines(f"{filler}{name}=geheim\n{filler}")
    assert f"{filler}it is *** here" == hide_in_lines(f"{filler}it is geheim here", ["geheim"])


def test_structures() -> None:
    """At any depth, whatever the value is; None is no secret, and what is hidden can be found in text."""
    assert {"api_token": "***", "deep": [{"password": "***"}], "band": "g"} == hide(SECRETS)
    assert {"token": None} == hide({"token": None})
    assert {"geheim 42", "geheim'43"} <= set(secrets_in(SECRETS))


@pytest.mark.parametrize(
    "params", [{"api_token": "geheim"}, {"api_token": "geheim@"}, {"headers": {"cookie": "geheim"}}]
)
def test_params_that_do_not_fit(params: dict[str, Any]) -> None:
    """The error names the field and what kind of problem it is, and not the value."""
    executor = Executor("kit.checked", lambda ctx, params: None, params_type=Checked)

    with pytest.raises(InvalidParamsError) as wrong:
        executor.load_params(params)

    assert "geheim" not in str(wrong.value)
    assert next(iter(params)) in str(wrong.value)


def test_errors_of_executors_are_stored_without_secrets() -> None:
    """Message and traceback of what an executor raises, causes included, do not hold params' or headers' secrets."""
    claim = claim_of("kit.tells", SECRETS, headers={"Authorization": "Bearer geheim-44"})

    def tells(ctx: RunContext, params: Any) -> None:
        try:
            raise KeyError(ctx.headers["Authorization"])
        except KeyError as error:
            raise ValueError(f"cannot use {params} at {params['deep'][0]['password']}") from error

    outcome = run_sync(RunContext(claim, MemoryPort(), run_here), claim, Executor("kit.tells", tells), DEFAULTS)

    assert isinstance(outcome, Failed)
    assert "geheim" not in str(outcome.error)
    assert "'band': 'g'" in outcome.error["message"]


def test_reasons_are_stored_without_secrets() -> None:
    """So is the reason of a cancellation."""
    claim = claim_of("kit.cancels", SECRETS)

    def cancels(ctx: RunContext, params: Any) -> None:
        raise Cancel(f"no use for {params['api_token']}")

    outcome = run_sync(RunContext(claim, MemoryPort(), run_here), claim, Executor("kit.cancels", cancels), DEFAULTS)

    assert Cancelled("no use for ***") == outcome


def test_an_executors_log_hides_secrets_whoever_configured_it(capsys: pytest.CaptureFixture[str]) -> None:
    """ctx.log redacts nested values, objects, texts and tracebacks, with structlog's defaults and any processors."""
    own: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    for processors in (None, own):
        structlog.reset_defaults()
        if processors is not None:
            structlog.configure(processors=processors)
        context = RunContext(claim_of("kit.logs", SECRETS), MemoryPort())

        context.log.info("begins", params=SECRETS, holder=Holder("ada", "geheim"), url="http://a:geheim@b/")
        context.log.info(f"with token={str(SECRETS['api_token'])[:6]}")
        try:
            raise ValueError("password='geheim'")
        except ValueError:
            context.log.exception("failed")
    structlog.reset_defaults()

    said = "".join(capsys.readouterr())
    assert "geheim" not in said
    assert "ada" in said and "ValueError" in said


def test_processors_for_ones_own_configuration() -> None:
    """`redact_exception` and `redact` make any chain safe: an error in it is text without secrets."""
    event = redact(None, "error", redact_exception(None, "error", {"exc_info": ValueError("token=geheim"), "n": 1}))

    assert "geheim" not in json.dumps(event)
    assert event["n"] == 1
