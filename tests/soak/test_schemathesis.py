"""The web interface under schemathesis, which reads its OpenAPI; skipped where that is not installed.

It is no part of the extra `dev`: it brings rich, which structlog imports if it is there, in each of the processes that
tests start.  ``tests/web/test_fuzz.py`` makes requests by chance in every run of the suite.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import psycopg
import pytest
from house import run_python, told
from web.test_serve import served
from world import World

from absurd.tokens import new_token, token_hash

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


@pytest.mark.skipif(importlib.util.find_spec("schemathesis") is None, reason="pip install schemathesis")
@pytest.mark.parametrize("with_token", [True, False])
def test_every_answer_is_as_described(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_token: bool
) -> None:
    """No 5xx, no status, header or body that the OpenAPI does not tell of, with a token and without."""
    token = new_token()
    with psycopg.connect(database_url, autocommit=True, options="-c search_path=absurd,public") as connection:
        world = World(connection)
        executors = json.dumps([{"name": world.executor, "runs_in": "loop", "params_schema": {"type": "object"}}])
        connection.execute("select register_executors(%s)", [executors])
        connection.execute("select create_token('soak', 'admin', %s)", [token_hash(token)])
    monkeypatch.setenv("ABSURD_WEB_RATE", "0")
    monkeypatch.setenv("ABSURD_LOG_LEVEL", "error")

    with served(database_url, tmp_path) as (_, url):
        header = ["-H", f"Authorization: Bearer {token}"] if with_token else []
        result = run_python(
            *("-m", "schemathesis.cli", "run", f"{url}/api/v1/openapi.json", *header),
            *("--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing", "--suppress-health-check", "all"),
            *("--max-examples", "50", "--request-timeout", "60", "--no-color"),
            cwd=tmp_path,
            seconds=3600,
        )

    assert result.returncode == 0, told(result)
