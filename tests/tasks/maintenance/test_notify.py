"""Messages that tasks send."""

from __future__ import annotations

import pytest
from receiver import receiving
from single_run import fail, run

from absurd.errors import InvalidParamsError
from absurd.executor import registry


def test_a_task_tells_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name; what does not arrive fails the run, without the address, and is tried again."""
    with receiving() as receiver:
        monkeypatch.setenv("ABSURD_ALERT_TARGETS", f"oncall={receiver.url}/geheim")
        params = {"target": "oncall", "title": "night 12", "message": "All is done.", "severity": "critical"}
        result, _ = run("maintenance.notify", params)
        receiver.answers = [500]
        error = fail("maintenance.notify", params)

    assert {"target": "oncall"} == result
    assert ("night 12", "All is done.", "critical", "told") == tuple(
        receiver.got[0][key] for key in ("alert", "message", "severity", "state")
    )
    assert receiver.headers[0]["idempotency-key"].endswith(receiver.got[0]["id"])
    assert "delivery_failed" == error["code"]
    assert "geheim" not in str(error)
    with pytest.raises(InvalidParamsError, match="severity"):
        registry.require("maintenance.notify").load_params(params | {"severity": "bad"})
