"""What can be told to a session, and to a manager for the session that is active: for threads, and for asyncio."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from typing import Any

from absurd.tasks.session.book import Book
from absurd.tasks.session.masters import reference

Call = Callable[[Book], "Future[None]"]


class Telling(ABC):
    """The calls for threads: each returns when what was told is safe, as ``sync`` says.

    Values are kept in the form that `absurd.tasks.session.values.encode` tells.  All raise SessionValueError for what
    cannot be kept, SessionStateError once the session has ended, SessionStorageError where the disk refuses; nothing
    of that call is kept then.
    """

    @abstractmethod
    def _tell(self, call: Call) -> None:
        """Have the active session keep what is told."""

    def log(self, level: str | int, message: str, *, source: str | None = None, **context: Any) -> None:
        """A line of the log, with what belongs to it; `source` names who tells it."""
        self._tell(lambda book: book.log(level, message, source, context))

    def add_event(self, event: str, details: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Something that happened, such as ``tracking_lost``, with its details."""
        self._tell(lambda book: book.event(event, {**(details or {}), **more}))

    def add_telemetry(self, name: str, values: Any = None, *, time: datetime | str | None = None, **more: Any) -> None:
        """A sample of what is measured all the time, such as ``mount_position``.

        A bare number becomes ``value``; `time` is when it was measured, now without it.
        """
        self._tell(lambda book: book.telemetry(name, sample(values, more), time))

    def add_calibration(self, name: str, value: Any) -> None:
        """A result of a calibration, such as ``plate_solve``; or an array, such as a ``dark``, or a list of arrays."""
        self._tell(lambda book: book.calibration(name, value))

    def add_master(self, path: str | os.PathLike[str]) -> None:
        """A master frame that is used: it is referred to by its path, in the data folder or anywhere, and its checksum.

        Raises SessionNotFoundError, SessionValueError if it is none.
        """
        self._tell(lambda book: book.calibration("masters", reference(book.place.data_dir, Path(path))))

    def add_camera(
        self, camera: str, *, info: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        """What is known of a camera, and how it is set; later values of a name replace earlier ones."""
        self._tell(lambda book: book.camera(camera, info or {}, settings or {}))

    def add_frame(
        self,
        camera: str,
        frame: Any,
        *,
        time: datetime | str | None = None,
        exposure_us: float | None = None,
        settings: Mapping[str, Any] | None = None,
        info: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        """A frame of a camera: any array of integers, floats, complex numbers or booleans.

        `time` is when it was taken, now without it; `exposure_us` microseconds.  `settings` are kept with the frame
        and, as `info`, with the camera; further fields with the frame.
        """
        told = {"time": time, "exposure_us": exposure_us, "settings": settings, "info": info}
        self._tell(lambda book: book.frame(camera, frame, told, fields))


class AsyncTelling(ABC):
    """The calls of `Telling` for asyncio."""

    @abstractmethod
    async def _tell(self, call: Call) -> None:
        """Have the active session keep what is told."""

    @abstractmethod
    async def _tell_apart(self, call: Call) -> None:
        """As `_tell`, from a thread: for what writes more than a few bytes."""

    async def log(self, level: str | int, message: str, *, source: str | None = None, **context: Any) -> None:
        """As `Telling.log`."""
        await self._tell(lambda book: book.log(level, message, source, context))

    async def add_event(self, event: str, details: Mapping[str, Any] | None = None, **more: Any) -> None:
        """As `Telling.add_event`."""
        await self._tell(lambda book: book.event(event, {**(details or {}), **more}))

    async def add_telemetry(
        self, name: str, values: Any = None, *, time: datetime | str | None = None, **more: Any
    ) -> None:
        """As `Telling.add_telemetry`."""
        await self._tell(lambda book: book.telemetry(name, sample(values, more), time))

    async def add_calibration(self, name: str, value: Any) -> None:
        """As `Telling.add_calibration`."""
        await self._tell_apart(lambda book: book.calibration(name, value))

    async def add_master(self, path: str | os.PathLike[str]) -> None:
        """As `Telling.add_master`."""
        await self._tell_apart(lambda book: book.calibration("masters", reference(book.place.data_dir, Path(path))))

    async def add_camera(
        self, camera: str, *, info: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None
    ) -> None:
        """As `Telling.add_camera`."""
        await self._tell(lambda book: book.camera(camera, info or {}, settings or {}))

    async def add_frame(
        self,
        camera: str,
        frame: Any,
        *,
        time: datetime | str | None = None,
        exposure_us: float | None = None,
        settings: Mapping[str, Any] | None = None,
        info: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        """As `Telling.add_frame`; the array must not change before this returns."""
        told = {"time": time, "exposure_us": exposure_us, "settings": settings, "info": info}
        await self._tell_apart(lambda book: book.frame(camera, frame, told, fields))


def sample(values: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a sample of telemetry."""
    if isinstance(values, Mapping):
        return {**values, **more}
    return dict(more) if values is None else {"value": values, **more}
