"""The description of the interface as one page, made here: nothing is fetched from elsewhere, no script runs."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import Any

from fastapi import Request
from starlette.responses import HTMLResponse

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h2 { margin-top: 3rem; } h3 { margin: 2rem 0 .25rem; font-size: 1rem; }
code { font: .9rem/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
tr { border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); } th { font-weight: 600; }
"""
_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


async def show_docs(request: Request) -> HTMLResponse:
    """Every route, with what it takes and answers."""
    return HTMLResponse(docs_page(request.app.openapi()), headers={"Content-Security-Policy": POLICY})


def docs_page(described: dict[str, Any]) -> str:
    """The page of an OpenAPI document."""
    info = described["info"]
    parts = [f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>", f"<p>{_prose(info['description'])}</p>"]
    parts.append('<p><a href="openapi.json">The same for programs (OpenAPI)</a></p>')
    last = None
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            if operation["tags"] != last:
                last = operation["tags"]
                parts.append(f"<h2>{escape(', '.join(last).capitalize())}</h2>")
            parts.append(_operation(method, path, operation, described))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])}: REST</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>"
    )


def scope_of(operation: dict[str, Any]) -> str | None:
    """The scope that an operation needs; None for one that needs no token."""
    return next((scope for each in operation.get("security", ()) for scope in each["token"]), None)


def fields_of(operation: dict[str, Any], described: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, place, type and meaning of what an operation takes."""
    found = [
        (each["name"], each["in"], type_of(each["schema"]), each.get("description") or "")
        for each in operation.get("parameters", ())
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    schemas = described["components"]["schemas"]
    for name in _references(body):
        required = schemas[name].get("required", ())
        found += [
            (
                field + (" (required)" if field in required else ""),
                "body",
                type_of(about),
                about.get("description") or "",
            )
            for field, about in schemas[name]["properties"].items()
        ]
    return found


def type_of(about: dict[str, Any]) -> str:
    """A JSON schema in a word or two."""
    if kinds := about.get("anyOf"):
        return " or ".join(type_of(each) for each in kinds if each.get("type") != "null") or "null"
    if "$ref" in about:
        return str(about["$ref"].rpartition("/")[2])
    if "enum" in about:
        return ", ".join(map(str, about["enum"]))
    if about.get("type") == "array":
        return f"list of {type_of(about.get('items', {}))}"
    return str(about.get("format") or about.get("type") or "anything")


def _references(body: dict[str, Any]) -> list[str]:
    return [type_of(each) for each in (*body.get("anyOf", ()), body) if "$ref" in each]


def _operation(method: str, path: str, operation: dict[str, Any], described: dict[str, Any]) -> str:
    scope = scope_of(operation)
    needs = f"Scope: {escape(scope)}." if scope else "Needs no token."
    rows = "".join(
        f"<tr><th scope=row><code>{escape(name)}</code></th><td>{escape(place)}</td><td>{escape(kind)}</td>"
        f"<td>{_prose(meaning)}</td></tr>"
        for name, place, kind, meaning in fields_of(operation, described)
    )
    answers = "".join(
        f"<tr><th scope=row>{escape(status)}</th><td>{_prose(each.get('description') or '')}</td></tr>"
        for status, each in operation["responses"].items()
    )
    return (
        f"<h3 id={escape(operation['operationId'])}><code>{method.upper()} {escape(path)}</code></h3>"
        f"<p>{_prose(operation['description'])} {needs}</p>"
        + (f"<table>{rows}</table>" if rows else "")
        + f"<details><summary>Answers</summary><table>{answers}</table></details>"
    )


def _prose(text: str) -> str:
    """Text in which backticks mark code."""
    parts = escape(" ".join(text.split())).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))
