"""Messages about alerts, to receivers on this machine."""

from __future__ import annotations

import email
import logging
import socket
from email.policy import default
from typing import Any

import pytest
from receiver import mailbox, receiving

from absurd.config import load_settings
from absurd.errors import ConfigurationError, DeliveryError
from absurd.targets import send

MESSAGE: dict[str, Any] = {
    "id": 7, "alert": "backlog", "state": "firing", "severity": "critical", "measure": "queue_age", "at": "2026-11-29",
    "value": 4000.0, "threshold": 3600.0, "message": "queue_age of queue default is 4000 s; the most is 3600 s",
}  # fmt: skip


def settings(target: str = "", **given: Any) -> Any:
    return load_settings(environ={}, alert_targets={"night": target} if target else None, **given)


def test_a_webhook_gets_the_message_as_json() -> None:
    """At its path, with the user of the address, and with a key that is the same if it comes twice."""
    with receiving() as receiver:
        send(settings(receiver.url.replace("//", "//me:s%20t@") + "/hook/geheim?room=1"), "night", MESSAGE)

    assert [MESSAGE] == receiver.got
    (headers,) = receiver.headers
    assert ("/hook/geheim?room=1", "absurd-alert-7") == (headers["path"], headers["idempotency-key"])
    assert "Basic bWU6cyB0" == headers["authorization"]


def test_mail_is_handed_to_a_server() -> None:
    """To all addresses, with a subject that tells it; a password is sent over an encrypted connection alone."""
    with mailbox() as box:
        server = f"smtp://127.0.0.1:{box.port}"
        given = settings("mailto:a@example.org,b@example.org", alert_smtp=server, alert_sender="sky@example.org")
        send(given, "night", MESSAGE)
        with pytest.raises(DeliveryError, match="no encryption"):
            send(settings("mailto:a@example.org", alert_smtp=server.replace("//", "//me:geheim@")), "night", MESSAGE)
        box.refuse = True
        with pytest.raises(DeliveryError, match=r"^night did not take it: SMTPRecipientsRefused$"):
            send(given, "night", MESSAGE)

    (mail,) = (email.message_from_string(each, policy=default) for each in box.mails)
    assert ("a@example.org, b@example.org", "sky@example.org") == (mail["To"], mail["From"])
    assert "[critical] backlog: firing" == mail["Subject"]
    assert MESSAGE["message"] in mail.get_content()
    assert [] == box.users


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # apprise looks for it
def test_all_else_goes_to_apprise(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever services it speaks to; what it cannot deliver is told, without the address, and not in its own log."""
    with receiving() as receiver, caplog.at_level(logging.DEBUG, "apprise"):
        url = receiver.url.replace("http", "json") + "/geheim"
        send(settings(url), "night", MESSAGE)
        receiver.answers = [500]
        with pytest.raises(DeliveryError, match=r"^apprise could not deliver it$"):
            send(settings(url), "night", MESSAGE)
        with pytest.raises(DeliveryError, match=r"^apprise knows no such"):
            send(settings("pigeon://geheim"), "night", MESSAGE)

    assert ["failure", "[critical] backlog: firing"] == [receiver.got[0][name] for name in ("type", "title")]
    assert MESSAGE["message"] in receiver.got[0]["message"]
    assert [] == [each for each in caplog.messages if "geheim" in each]


def test_what_does_not_arrive_is_told_without_the_address() -> None:
    """A refusal, a redirection, nobody there, no such name: the error says what, and never where."""
    with receiving() as receiver:
        receiver.answers = [500, 302]
        found = [failure(settings(f"{receiver.url}/geheim")) for _ in range(2)]
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        found.append(failure(settings(f"http://127.0.0.1:{closed.getsockname()[1]}/geheim")))
    found += [failure(settings(each)) for each in ("", "http://x/\xe9geheim", "mailto:geheim@example.org")]

    for told, word in zip(
        found, ("500", "302", "refused", "names no night", "UnicodeEncodeError", "alert_smtp"), strict=True
    ):
        assert word in told
        assert "geheim" not in told


def failure(given: Any) -> str:
    with pytest.raises(DeliveryError) as caught:
        send(given, "night", MESSAGE)
    return caught.value.message


@pytest.mark.parametrize(
    "value",
    [
        "geheim",
        "a=geheim",
        "a b=http://geheim",
        "a=http://",
        "a=http://x:geheim",
        "a=https://x/1 geheim",
        "no name=x:geheim",
    ],
)
def test_targets_that_are_none_are_refused_unrepeated(value: str) -> None:
    """Names with URLs: anything else is told without what it was."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ={"ABSURD_ALERT_TARGETS": value})

    assert "ABSURD_ALERT_TARGETS is ***" in caught.value.message
    assert "geheim" not in str(caught.value)
    assert "geheim" not in repr(load_settings(environ={"ABSURD_ALERT_TARGETS": "a=https://x/geheim b=mailto:geheim@x"}))
