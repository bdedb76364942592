"""What lies beside an export and tells what it should be: its files with their rows and SHA-256."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from absurd.tasks.export.destination import beside, located, name_of, real_place
from absurd.tasks.export.errors import ManifestError

if TYPE_CHECKING:
    from absurd.tasks.export.query import ExportResult

SUFFIX = ".manifest.json"
"""Behind the name of a file."""
IN_FOLDER = "_manifest.json"
"""In the folder of a dataset; readers of datasets pass over names that begin with an underscore."""
FORMAT = "absurd.export/1"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file of an export."""

    path: str
    """From the folder of the manifest, with ``/`` between its parts."""
    rows: int
    bytes: int
    row_groups: int
    sha256: str
    partition: Mapping[str, Any]
    """Columns that the dataset is partitioned by, with their value in this file."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest tells."""

    path: str
    """Where it was read."""
    query: str
    snapshot: str
    rows: int
    bytes: int
    partition_by: tuple[str, ...]
    columns: tuple[Mapping[str, Any], ...]
    """As in the JSON: `name`, `postgres_type`, `arrow_type`, `kept_as_text`, `nulled`."""
    files: tuple[ExportedFile, ...]
    options: Mapping[str, Any] | None = None
    """With which the files were made; None in manifests of older versions."""
    database: Mapping[str, Any] | None = None
    """Of which they were made, as `absurd.tasks.export.provenance` tells; None in manifests of older versions."""


def manifest_path(place: str, *, is_dataset: bool) -> str:
    """Where the manifest of an export at `place` is."""
    return beside(place, f"/{IN_FOLDER}" if is_dataset else SUFFIX)


def encode(query: str, result: ExportResult) -> bytes:
    """The manifest of an export as JSON; the documentation tells of its fields."""
    document = {
        "query": query,
        "rows": result.rows,
        "bytes": result.bytes,
        "row_groups": result.row_groups,
        "partition_by": list(result.partition_by),
        "columns": [
            {
                "name": column.name,
                "postgres_type": column.postgres_type,
                "arrow_type": column.arrow_type,
                "kept_as_text": column.kept_as_text,
                "nulled": column.nulled,
            }
            for column in result.columns
        ],
        "files": [
            {
                "path": each.path,
                "rows": each.rows,
                "bytes": each.bytes,
                "row_groups": each.row_groups,
                "sha256": each.sha256,
                "partition": each.partition,
            }
            for each in result.files
        ],
        "snapshot": result.snapshot.snapshot,
        "snapshot_at": result.snapshot.taken_at,
        "server_version": result.snapshot.server_version,
        "options": result.options,
        "database": result.database,
    }
    return encode_document(document)


def encode_document(document: Mapping[str, Any]) -> bytes:
    """A manifest as JSON, with what all of them have."""
    whole = {"format": FORMAT} | dict(document) | {"absurd_version": version("absurd")}
    return (json.dumps(whole, ensure_ascii=False, indent=1, default=str) + "\n").encode()


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest of the export at `path`: a file, the folder of a dataset, or the manifest itself; or an address.

    Raises ManifestError for one that is not there or cannot be read, OSError.
    """
    return _find(path).manifest


def verify_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read all files of the export at `path` and compare them with its manifest, which is given back.

    `path` is that of `read_manifest`.  Raises ManifestError, which names the first file that is missing or differs in
    size or SHA-256, or that lies in a dataset and is not of it; OSError.
    """
    found = _find(path)
    manifest = found.manifest
    if sum(each.rows for each in manifest.files) != manifest.rows:
        raise ManifestError(f"{manifest.path} contradicts itself: the rows of its files are not {manifest.rows}")
    for each in manifest.files:
        place = f"{found.folder}/{each.path}"
        try:
            size, digest = _measured(found.files, place)
        except FileNotFoundError:
            raise ManifestError(
                f"{place} is missing, of which {manifest.path} tells; export it again", path=each.path
            ) from None
        if (size, digest) != (each.bytes, each.sha256):
            raise ManifestError(
                f"{place} is not the file of its manifest: {size} bytes with SHA-256 {digest}, not "
                f"{each.bytes} with {each.sha256}; export it again",
                path=each.path,
            )
    if found.is_dataset:
        strange = names_in(found.files, found.folder) - {each.path for each in manifest.files} - {IN_FOLDER}
        if strange:
            told = f"{found.folder} holds {min(strange)}, which its manifest does not know"
            raise ManifestError(told, path=min(strange))
    return manifest


def open_dataset(path: str | os.PathLike[str]) -> Any:
    """The `pyarrow.dataset.Dataset` of an export, with the exact types of the columns it is partitioned by.

    Columns are in the order of the query.  Other readers guess these types from the names of the folders.  Raises
    ManifestError, OSError.
    """
    import pyarrow as pa
    from pyarrow import dataset

    from absurd.tasks.export.arrow_types import arrow_type

    found = _find(path)
    manifest = found.manifest
    names = [f"{found.folder}/{each.path}" for each in manifest.files]
    inside = dataset.dataset(names[:1], filesystem=found.files).schema
    types = {each["name"]: each["arrow_type"] for each in manifest.columns}
    keys = {name: pa.field(name, arrow_type(types[name])) for name in manifest.partition_by}
    return dataset.dataset(
        names,
        schema=pa.schema([keys.get(name) or inside.field(name) for name in types]),
        filesystem=found.files,
        partitioning=dataset.partitioning(pa.schema(list(keys.values())), flavor="hive") if keys else None,
        partition_base_dir=found.folder,
    )


def snapshot_of(
    path: str | os.PathLike[str], query: str, options: Mapping[str, Any], database: Mapping[str, Any]
) -> str | None:
    """What the rows of an export were read from; None if it is not whole, or not of that query, options and database.

    Files are whole by their sizes; `verify_manifest` looks into them.
    """
    try:
        found = _find(path)
    except ManifestError:
        return None
    manifest = found.manifest
    if (manifest.query, manifest.options, manifest.database) != (query, options, database):
        return None
    infos = found.files.get_file_info([f"{found.folder}/{each.path}" for each in manifest.files])
    is_whole = all(info.size == each.bytes for info, each in zip(infos, manifest.files, strict=True))
    return manifest.snapshot if is_whole else None


def names_in(files: Any, folder: str) -> set[str]:
    """The files in a folder of a file system and below it, from there; empty if there is no such folder."""
    from pyarrow import fs

    found = files.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    start = folder.strip("/") + "/"
    return {each.path.lstrip("/").removeprefix(start) for each in found if each.type != fs.FileType.Directory}


@dataclass(frozen=True, slots=True)
class _Found:
    files: Any
    """The file system."""
    folder: str
    """Path of the manifest's folder in it."""
    manifest: Manifest
    is_dataset: bool


def _find(path: str | os.PathLike[str]) -> _Found:
    place = real_place(os.fspath(path))
    name = name_of(place)
    files, inside = located(place)
    within: list[tuple[str, str]] = []
    if name == IN_FOLDER or name.endswith(SUFFIX):
        within.append((place, inside))
    within.append((beside(place, SUFFIX), inside + SUFFIX))
    within.append((beside(place, f"/{IN_FOLDER}"), f"{inside}/{IN_FOLDER}"))
    for told, candidate in within:
        try:
            with files.open_input_stream(candidate) as file:
                text = file.read()
        except (FileNotFoundError, NotADirectoryError):
            continue
        folder, _, own = candidate.rpartition("/")
        return _Found(files, folder, _decoded(told, text), is_dataset=own == IN_FOLDER)
    raise ManifestError(f"{place} has no manifest: it is no export, or one that did not end", path=place)


def _decoded(path: str, text: bytes) -> Manifest:
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise ManifestError(f"{path} has the format {document['format']!r}; this version reads {FORMAT}", path=path)
        return Manifest(
            path=path,
            query=document["query"],
            snapshot=document["snapshot"],
            rows=document["rows"],
            bytes=document["bytes"],
            partition_by=tuple(document["partition_by"]),
            columns=tuple(document["columns"]),
            files=tuple(ExportedFile(**each) for each in document["files"]),
            options=document.get("options"),
            database=document.get("database"),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{path} is no manifest of an export: {error}", path=path) from None


def _measured(files: Any, path: str) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with files.open_input_stream(path) as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()
