"""Gain sets by both clients: each method of the one gives what that of the other gives."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from absurd import AbsurdClient, SyncAbsurdClient
from absurd.errors import GainSetNotFoundError, GainSetStateError, InvalidOptionError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def told(path: str, **changes: Any) -> dict[str, Any]:
    return {
        "telescope": "OVRO_MMA", "path": path, "checksum": "0" * 64, "bytes": 9, "kinds": ["gain"], "source": "3C48",
        "declination": 54.6, "strip": 1, "lowest_hz": 1.28e9, "highest_hz": 1.53e9,
        "observed_from": "2026-03-01T12:00Z", "observed_until": "2026-03-01T12:05Z",
        "valid_from": "2026-03-01T00:00Z", "valid_until": "2026-03-02T00:00Z",
    } | changes  # fmt: skip


async def test_both_clients(database_url: str) -> None:
    """Registered by one, found, accepted, quarantined and forgotten by the other; errors are those of the house."""
    async with AbsurdClient(database_url) as client:
        with SyncAbsurdClient(database_url) as other:
            one = await client.register_gain_set(told("/one"))
            two = other.register_gain_set(told("/two"), "candidate")
            assert (one["state"], two["state"], one["created"]) == ("valid", "candidate", True)
            for document in (await client.get_gain_set(one["id"]), other.get_gain_set(one["id"])):
                assert document is not None
                assert (document["path"], document["state"]) == ("/one", "valid")
            assert await client.get_gain_set(77) is other.get_gain_set(77) is None

            for document in (
                await client.get_stored_gain_set("/two", "0" * 64),
                other.get_stored_gain_set("/two", "0" * 64),
            ):
                assert (document or {})["id"] == two["id"]
            assert await client.get_stored_gain_set("/two", "1" * 64) is other.get_stored_gain_set("/x", "0") is None

            for found in (
                await client.find_gain_sets("OVRO_MMA", NOON, 54.9),
                other.find_gain_sets("OVRO_MMA", NOON, 54.9, limit=1),
                await client.list_gain_sets("OVRO_MMA", state="valid", since=NOON),
                other.list_gain_sets(state="valid", limit=3),
            ):
                assert [each["path"] for each in found] == ["/one"]

            assert await client.accept_gain_set(two["id"], {"snr": 20.0}) == "valid"
            assert other.accept_gain_set(one["id"]) == "superseded"
            assert other.accept_gain_set(one["id"], again=True) == "valid"
            assert await client.quarantine_gain_set(one["id"], "noise") is True
            assert other.quarantine_gain_set(one["id"], "noise", {"closure": 1.0}) is False
            with pytest.raises(GainSetStateError, match="is quarantined: noise"):
                await client.accept_gain_set(one["id"])
            with pytest.raises(GainSetNotFoundError, match="there is no gain set 77"):
                other.accept_gain_set(77)
            with pytest.raises(InvalidOptionError, match="no key 'colour'"):
                await client.register_gain_set(told("/three", colour="red"))
            with pytest.raises(InvalidOptionError, match="with its zone"):
                other.find_gain_sets("OVRO_MMA", datetime(2026, 3, 1, 12), 54.6)  # noqa: DTZ001
            assert await client.forget_gain_set(one["id"]) is True
            assert other.forget_gain_set(one["id"]) is False
