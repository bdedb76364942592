"""Where exports go: local paths, and addresses of other file systems."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from absurd.tasks.export.errors import ExportConfigError
from absurd.tasks.said import first_line

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*$")
_QUERY = (
    "scheme", "region", "endpoint_override", "force_virtual_addressing", "retry_limit_seconds", "project_id",
    "blob_storage_authority", "dfs_storage_authority", "blob_storage_scheme", "dfs_storage_scheme", "enable_tls",
    "replication",
)  # fmt: skip
"""What an address may say after its ``?``: these hold no secret, all others might."""
_USERS = {"abfs": None, "abfss": None, "gs": "anonymous", "gcs": "anonymous", "sftp": None, "ssh": None}
"""Schemes whose addresses have a user that is no secret: a container, nobody, a login; None: any."""
_IN_BUCKETS = ("s3", "gs", "gcs", "abfs", "abfss")
"""Schemes whose addresses begin with a bucket or a container, which is no file and no folder."""
_WAY_OUT = (
    "a task would keep it where others read it: leave it out, and give it to the processes that export by the "
    "environment (AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, ...), a configuration file or the machine's role"
)


def place_of(out: str) -> str:
    """`out` so that it does not depend on the working folder: an absolute path, or the address it is.

    ``file://`` addresses are paths.  Raises ExportConfigError for an address that cannot be read, and for one that
    holds what may be a secret; also for a name that no manifest could tell of, since it is not UTF-8.
    """
    if not is_plain_text(out):
        raise ExportConfigError(f"{out!r} cannot be the name of an export: it holds a NUL, or is not UTF-8")
    if not is_address(out):
        return os.path.abspath(out)
    try:
        parts = urlsplit(out)
        user, password = parts.username, parts.password
    except ValueError:
        raise ExportConfigError("the address to export to cannot be read: write it as scheme://place/path") from None
    scheme = parts.scheme.lower()
    told = _told(parts)
    if not _SCHEME.match(out.partition("://")[0]):
        raise ExportConfigError(f"{told!r} is neither a path nor an address such as s3://bucket/name.parquet", out=told)
    if scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise ExportConfigError(
                f"{told!r} names a file of another machine: leave out the host, or write the path", out=told
            )
        return os.path.abspath(unquote(parts.path))
    if password is not None or (user is not None and (scheme not in _USERS or _USERS[scheme] not in (None, user))):
        raise ExportConfigError(f"{told!r} holds a user or a password, and {_WAY_OUT}", out=told)
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _QUERY:
            raise ExportConfigError(
                f"{told!r} has the parameter {name!r}, which may be a secret, and {_WAY_OUT}. What may stand there is "
                f"{', '.join(_QUERY)}",
                out=told,
            )
    if not f"{parts.netloc}{parts.path}".strip("/"):
        raise ExportConfigError(f"{told!r} names no file: write it as scheme://place/path", out=told)
    return out


def is_plain_text(text: str) -> bool:
    """Whether a text has an encoding that nothing cuts short: arguments of a command may hold any byte, JSON a NUL."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def place_to_write(out: str) -> str:
    """As `place_of`, for what is to be written; raises ExportConfigError for a bucket without a name in it as well."""
    place = place_of(out)
    parts = urlsplit(place)
    if is_address(place) and parts.scheme.lower() in _IN_BUCKETS and not parts.path.strip("/"):
        told = _told(parts)
        raise ExportConfigError(f"{told!r} names a bucket and nothing in it: write {told.rstrip('/')}/name", out=told)
    return place


def real_place(out: str) -> str:
    """As `place_of`; of a path that is a symbolic link, the file or folder that it points to, there or not there yet.

    For whoever reads and writes: who only hands the place on may see other links than the one who does.
    """
    place = place_of(out)
    if is_address(place) or not os.path.islink(place):
        return place
    is_plain = os.path.isfile(place) or os.path.isdir(place) or not os.path.exists(place)
    return os.path.realpath(place) if is_plain else place  # /dev/stdout leads to a pipe, which has no path


def local_place(path: str, what: str) -> str:
    """The absolute path of what can only be a local file: a path, or a ``file://`` address.

    Raises ExportConfigError for other addresses, with `what` that file is in words.
    """
    place = place_of(path)
    if is_address(place):
        told = _told(urlsplit(place))
        raise ExportConfigError(
            f"{told!r} is an address, and {what} can only be a local file: give a path, and copy it", path=told
        )
    return place


def is_address(out: str) -> bool:
    """Whether it names a file system beside its path."""
    return "://" in out


def name_of(place: str) -> str:
    """The last part of a place: what the file, or the folder, is called."""
    path = urlsplit(place).path or urlsplit(place).netloc if is_address(place) else place
    return path.rstrip("/").rpartition("/")[2]


def beside(place: str, suffix: str) -> str:
    """The place with `suffix` at the end of its name."""
    if not is_address(place):
        return place + suffix
    parts = urlsplit(place)
    if not parts.path:
        return parts._replace(netloc=parts.netloc + suffix).geturl()
    return parts._replace(path=parts.path.rstrip("/") + suffix).geturl()


def filesystem_of(address: str) -> tuple[Any, str]:
    """The `pyarrow.fs.FileSystem` of an address, and the path in it: pyarrow's own, else that of fsspec.

    Raises ExportConfigError if neither knows it, or a package for it is missing; OSError.
    """
    import pyarrow as pa
    from pyarrow import fs

    place_of(address)
    try:
        found: tuple[Any, str] = fs.FileSystem.from_uri(address)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as refused:
        if "Unrecognized filesystem type" not in str(refused) and "without" not in str(refused):
            raise ExportConfigError(f"{address!r} cannot be used: {refused}", out=address) from None
    except OSError as error:
        if not str(error).startswith("Unable to load"):
            raise
        raise ExportConfigError(
            f"{address!r} cannot be used: {first_line(error)}, which has to be installed", out=address
        ) from None
    else:
        return found[0], found[1].rstrip("/")
    scheme = address.partition("://")[0]
    try:
        from fsspec.core import url_to_fs

        known, path = url_to_fs(address)
    except ModuleNotFoundError as missing:
        package = str(missing.name).partition(".")[0]
        raise ExportConfigError(
            f"{address!r} needs the package {package}, which is not installed: install it beside absurd[export], "
            "or export to a file and copy that",
            out=address,
        ) from None
    except ImportError as missing:
        raise ExportConfigError(f"{address!r} cannot be used: {missing}", out=address) from None
    except ValueError as error:
        raise ExportConfigError(
            f"{address!r} names the file system {scheme!r}, which neither pyarrow nor fsspec knows ({error}): "
            "write s3://, gs://, abfs:// or another that fsspec lists, or a path",
            out=address,
        ) from None
    return fs.PyFileSystem(fs.FSSpecHandler(known)), path.rstrip("/")


def located(place: str) -> tuple[Any, str]:
    """The `pyarrow.fs.FileSystem` of a place, a local path or an address, and the path in it.

    Raises as `filesystem_of`.
    """
    if is_address(place):
        return filesystem_of(place)
    from pyarrow import fs

    return fs.LocalFileSystem(), place


def _told(parts: SplitResult) -> str:
    """The address without what may be a secret."""
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{'…@' if '@' in parts.netloc else ''}{host}{parts.path}{'?…' if parts.query else ''}"
