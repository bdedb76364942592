"""Where messages about alerts go: webhooks, e-mail, and what apprise speaks.

Alerts name their targets, and the settings of who sends tell the addresses: these are as good as passwords, so no
error, log line or row holds one.
"""

from __future__ import annotations

import base64
import json
import logging
import smtplib
import socket
import ssl
from collections.abc import Mapping
from email.message import EmailMessage
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from absurd.config import Settings
from absurd.errors import DeliveryError

TIMEOUT = 10.0
"""Seconds that a receiver may take for each step."""
TRIAL = "test"
"""The state that a message has which is sent to try a target."""


def try_all(settings: Settings, alert: Mapping[str, Any], told: str) -> list[dict[str, Any]]:
    """Send a message that is marked as a test to all targets of `alert`; gives each target, with the error or None."""
    message = {name: alert[name] for name in ("severity", "measure", "value", "threshold")}
    message |= {"id": None, "alert": alert["name"], "state": TRIAL, "at": None, "message": told}
    found: list[dict[str, Any]] = []
    for target in alert["targets"]:
        try:
            send(settings, target, message)
        except DeliveryError as error:
            found.append({"target": target, "error": error.message})
        else:
            found.append({"target": target, "error": None})
    return found


def send(settings: Settings, target: str, message: Mapping[str, Any]) -> None:
    """Send `message` to the target of that name; returns when the receiver has taken it.

    `message` holds id, alert, state, severity, measure, at, value, threshold and message.  Raises DeliveryError.
    """
    url = (settings.alert_targets or {}).get(target)
    if url is None:
        raise DeliveryError(f"the setting alert_targets of {socket.gethostname()} names no {target}", target=target)
    kind = url.partition(":")[0]
    try:
        if kind in ("http", "https"):
            _post(urlsplit(url), message)
        elif kind == "mailto":
            _mail(settings, unquote(url.partition(":")[2].partition("?")[0]), message)
        else:
            _notify(url, message)
    except DeliveryError:
        raise
    except (HTTPException, smtplib.SMTPException, ValueError) as error:  # their texts repeat addresses
        code = getattr(error, "smtp_code", None)
        told = type(error).__name__ + (f" {code}" if code else "")
        raise DeliveryError(f"{target} did not take it: {told}", target=target) from None
    except OSError as error:
        told = error.strerror or type(error).__name__
        raise DeliveryError(f"{target} cannot be reached: {told}", target=target) from None


def title(message: Mapping[str, Any]) -> str:
    """The message in a line."""
    return f"[{message['severity']}] {message['alert']}: {message['state']}"


def _post(url: SplitResult, message: Mapping[str, Any]) -> None:
    """As JSON; with an id that is the same if it comes twice, because the sender died before it had noted the first."""
    assert url.hostname is not None
    headers = {"Content-Type": "application/json", "User-Agent": "absurd"}
    if message["id"] is not None:
        headers["Idempotency-Key"] = f"absurd-alert-{message['id']}"
    if url.username is not None:
        user = f"{unquote(url.username)}:{unquote(url.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
    connection: HTTPConnection
    if url.scheme == "https":
        connection = HTTPSConnection(url.hostname, url.port, timeout=TIMEOUT, context=ssl.create_default_context())
    else:
        connection = HTTPConnection(url.hostname, url.port, timeout=TIMEOUT)
    try:
        place = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request("POST", place, json.dumps(dict(message)).encode(), headers)
        status = connection.getresponse().status
    finally:
        connection.close()
    if not 200 <= status < 300:  # a redirection too: where it leads is not what somebody has chosen
        raise DeliveryError(f"the receiver answered with {status}", status=status)


def _mail(settings: Settings, addresses: str, message: Mapping[str, Any]) -> None:
    if settings.alert_smtp is None:
        raise DeliveryError("e-mail needs the setting alert_smtp")
    server = urlsplit(settings.alert_smtp)
    assert server.hostname is not None
    host = socket.gethostname()
    mail = EmailMessage()
    mail["Subject"] = title(message)
    mail["From"] = settings.alert_sender or f"absurd@{host}"
    mail["To"] = addresses
    if message["id"] is not None:
        mail["Message-ID"] = f"<absurd-alert-{message['id']}@{host}>"
    mail.set_content(text(message))
    context = ssl.create_default_context()
    with (
        smtplib.SMTP_SSL(server.hostname, server.port or 465, timeout=TIMEOUT, context=context)
        if server.scheme == "smtps"
        else smtplib.SMTP(server.hostname, server.port or 25, timeout=TIMEOUT)
    ) as session:
        session.ehlo()
        encrypted = server.scheme == "smtps"
        if not encrypted and session.has_extn("starttls"):
            session.starttls(context=context)
            session.ehlo()
            encrypted = True
        if server.username is not None:
            if not encrypted:
                raise DeliveryError("the mail server offers no encryption, and a password is not sent without")
            session.login(unquote(server.username), unquote(server.password or ""))
        session.send_message(mail)


def _notify(url: str, message: Mapping[str, Any]) -> None:
    try:
        import apprise
    except ModuleNotFoundError:
        raise DeliveryError("this kind of address needs apprise: `pip install 'absurd[alerts]'`") from None
    logging.getLogger("apprise").disabled = True  # its lines hold addresses
    kinds = {"firing": apprise.NotifyType.WARNING, "recovered": apprise.NotifyType.SUCCESS}
    kind = kinds.get(message["state"], apprise.NotifyType.INFO)
    if (message["state"], message["severity"]) == ("firing", "critical"):
        kind = apprise.NotifyType.FAILURE
    sender = apprise.Apprise()
    if not sender.add(url):
        raise DeliveryError("apprise knows no such kind of address")
    if not sender.notify(body=text(message), title=title(message), notify_type=kind):
        raise DeliveryError("apprise could not deliver it")


def text(message: Mapping[str, Any]) -> str:
    """The message for people."""
    when = f"\n{message['state']} at {message['at']}" if message["at"] else ""
    return f"{message['message']}{when}"
