"""``visibility.*``: from arriving sub-bands to flagged Measurement Sets on the queue."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from absurd.context import RunContext
from absurd.executor import executor
from absurd.outcome import Cancel, Reject
from absurd.tasks.radio.errors import DataError, UnreadableError

if TYPE_CHECKING:
    from absurd.tasks.visibility.flagging.on_disk import Done

LOOKS = 3
"""How often `visibility.ingest` looks at files that are being written before it leaves them for the next time."""
Place = Annotated[str, Field(min_length=1)]
TELESCOPE = (
    "A telescope by its name (dsa110), or the path of its TOML file: Measurement Sets have all of its band then "
    "(channels without a sub-band are flagged); without it those from the lowest to the highest that there are."
)

for module in ("casacore", "h5py", "numba", "numpy", "zarr"):
    if find_spec(module) is None:  # not registered then: a worker that has it will serve the tasks
        raise ImportError(f"{module} is missing, install absurd[radio]", name=module)


class IngestParams(BaseModel):
    """Which folder, and how its files are grouped; what is left out stays as the intake has it."""

    model_config = ConfigDict(extra="forbid")

    folder: Place = Field(description="Folder in which sub-band files arrive; those below it are looked at as well.")
    intake: str = Field(
        default="incoming", min_length=1, description="Name under which files and groups are recorded, made if need be."
    )
    out: Place | None = Field(
        default=None,
        description="Folder for the Measurement Sets; without it as the intake has it, else beside `folder`.",
    )
    telescope: str | None = Field(default=None, min_length=1, description=TELESCOPE)
    queue: str | None = Field(default=None, description="Queue of the conversions; without it that of their executor.")
    subbands: int | None = Field(default=None, ge=1, le=4096, description="Sub-bands of a complete group; at first 16.")
    min_subbands: int | None = Field(
        default=None,
        ge=1,
        description="With so many a group is converted once its time is out, with fewer it fails; at first 3 in 4.",
    )
    time_tolerance_s: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Seconds between a file's stamp and the time of its group; at first 60.",
    )
    declination_tolerance_deg: float | None = Field(
        default=None, ge=0, le=180, description="Degrees between declinations of one group; at first 0.1."
    )
    timeout_s: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that a group waits for more after its last file, and that a file may stay unfinished; "
        "at first 300.",
    )
    steady_s: float = Field(
        default=5.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds for which a file must not change before it is read.",
    )

    def policy(self) -> dict[str, Any]:
        """As the intake takes it; None for what stays."""
        return {
            "subbands": self.subbands,
            "min_subbands": self.min_subbands,
            "time_tolerance": self.time_tolerance_s,
            "declination_tolerance": self.declination_tolerance_deg,
            "timeout": self.timeout_s,
            "queue": self.queue,
        }


@executor("visibility.ingest", runs_in="process")
def ingest(ctx: RunContext, params: IngestParams) -> dict[str, Any]:
    """Look at a folder of sub-band files once, and have groups that are complete or out of time converted.

    Files that are known and have not changed cost next to nothing; so it may be scheduled each minute.  Files that are
    still being written are left for the next time.  The result counts files by what became of them.
    """
    from absurd.client_sync import SyncAbsurdClient
    from absurd.config import load_settings
    from absurd.tasks.visibility.arrivals import Arrivals, Look
    from absurd.tasks.visibility.intake import prepare

    with SyncAbsurdClient(settings=load_settings()) as client:
        where = {"out": params.out, "telescope": params.telescope}
        prepare(client, params.intake, params.folder, where, params.policy())

        def alive() -> None:
            ctx.progress(0, None, "looking")

        arrivals = Arrivals(client, params.intake, params.folder, steady_s=params.steady_s, alive=alive)
        looks = [arrivals.look()]
        for _ in range(LOOKS):
            if (pause := arrivals.next_s) is None:
                break
            time.sleep(min(pause, params.steady_s))
            looks.append(arrivals.look(()))
        settled = looks[0].settled
        if not arrivals.is_behind:
            settled += client.settle_subband_groups(params.intake)
    became = {each["path"]: each["state"] for look in looks for each in look.recorded}
    found: Look = looks[0]
    counts = {state: sum(each == state for each in became.values()) for state in sorted(set(became.values()))}
    ctx.log.info("folder_ingested", intake=params.intake, files=found.files, **counts)
    return {
        "intake": params.intake,
        "files": found.files,
        "others": found.others,
        "recorded": counts,
        "forgotten": found.forgotten,
        "settled": settled,
        "problems": found.problems,
    }


class ConvertGroupParams(BaseModel):
    """Which group, in which round, and where to."""

    model_config = ConfigDict(extra="forbid")

    group: int = Field(description="Number of the sub-band group.")
    round: int = Field(ge=1, description="Which of its conversions; another one asked for since makes this one idle.")
    out: Place = Field(description="Folder for the Measurement Set, which is named after the group's first stamp.")
    telescope: str | None = Field(default=None, min_length=1, description=TELESCOPE)


@executor("visibility.convert_group", runs_in="process")
def convert_group(ctx: RunContext, params: ConvertGroupParams) -> dict[str, Any]:
    """Convert a group of sub-bands to one Measurement Set: `visibility.ingest` and `absurd pipeline watch` spawn it.

    Sub-bands that are missing are flagged channels.  What arrives once this has begun is late, and not in the product
    until another conversion is asked for.  The first conversion needs all files of its group; another, which somebody
    has asked for, goes without those that are gone or damaged.  The result tells the product's path, bytes and checksum
    as it was made (flagging changes it), which sub-bands are in it, and why files are not.
    """
    from absurd.client_sync import SyncAbsurdClient
    from absurd.config import load_settings
    from absurd.tasks.radio.telescope import load_telescope
    from absurd.tasks.visibility import group_files
    from absurd.tasks.visibility.convert import convert_group as convert_files
    from absurd.tasks.visibility.measurement_set_files import size_and_checksum

    band = load_telescope(params.telescope).band if params.telescope else None
    with SyncAbsurdClient(settings=load_settings()) as client:
        group = client.begin_conversion(params.group, params.round, ctx.task_id)
        if group is None:
            raise Cancel(f"another conversion of sub-band group {params.group} was asked for since")
        path = Path(os.path.abspath(params.out)) / f"{group['name']}.ms"
        files = [each for each in group["files"] if each["state"] == "grouped"]
        lost = group_files.lost(files) if params.round > 1 else {}
        numbers = {each["number"]: each["path"] for each in files if each["path"] not in lost}
        if not numbers:
            raise Reject(f"sub-band group {params.group} has lost all its files")
        if group_files.is_poorer(numbers, group["product"]):
            raise Reject(f"the Measurement Set before has sub-bands that are lost: {'; '.join(lost.values())}")
        try:
            made = convert_files(
                list(numbers.values()),
                path,
                band=band,
                declination_tolerance_deg=group["declination_tolerance_deg"],
                on_subband=ctx.progress,
            )
        except UnreadableError:  # another attempt may read it
            raise
        except DataError as error:
            if group_files.changed(files):  # what is written again may be whole soon
                raise UnreadableError(f"{error.message}; files have changed since they were recorded") from error
            raise Reject(error.message) from error  # another attempt would read the same
        size, checksum = size_and_checksum(path)
        product = asdict(made) | {"path": str(path), "bytes": size, "checksum": checksum}
        missing = [number for number in range(group["expected"]) if number not in numbers]
        product |= {"subbands": sorted(numbers), "missing": missing, "lost": lost}
        if not client.end_conversion(params.group, params.round, product):
            raise Cancel(f"another conversion of sub-band group {params.group} was asked for since")
    ctx.log.info("group_converted", group=params.group, path=str(path), subbands=len(numbers))
    return {"group": params.group, "name": group["name"]} | product


class ConvertParams(BaseModel):
    """Which visibilities, and where to."""

    model_config = ConfigDict(extra="forbid")

    source: Place = Field(description="UVFITS, UVH5, MIRIAD or Measurement Set, told by what is in it.")
    ms: Place = Field(
        description="Measurement Set to be made; an older one is replaced when the new one is whole, no other folder."
    )
    spectral_window: int | None = Field(
        default=None, ge=0, description="Number of the spectral window; without it there must be one only."
    )


@executor("visibility.convert", runs_in="process")
def convert(ctx: RunContext, params: ConvertParams) -> dict[str, Any]:
    """Convert visibilities of any array, in whatever form, to a Measurement Set of one spectral window.

    All of them are in memory, see `read_visibilities`.  The result counts rows, channels, correlations and fields, and
    tells the part that is flagged.
    """
    from absurd.tasks.radio.apart import require_apart
    from absurd.tasks.visibility.foreign import read_visibilities
    from absurd.tasks.visibility.measurement_set import write_measurement_set

    require_apart([params.source], params.ms)
    found = read_visibilities(params.source, spectral_window=params.spectral_window)
    write_measurement_set(found, params.ms)
    rows, channels, correlations = found.data.shape
    ctx.log.info("visibilities_converted", source=params.source, ms=params.ms, rows=rows)
    return {
        "ms": params.ms,
        "telescope": found.array.telescope,
        "rows": rows,
        "channels": channels,
        "correlations": correlations,
        "fields": [each.name for each in found.phase_centres],
        "flagged": float(found.flags.mean()),
    }


class FlagParams(BaseModel):
    """What to flag, and how."""

    model_config = ConfigDict(extra="forbid")

    ms: Place = Field(description="Measurement Set whose flags are to grow, in place.")
    strategy: str = Field(
        default="default",
        description="default: our own search; quick: single samples only; structure: no search for interference; "
        "aoflagger: that of the program, if it is installed.",
    )
    steps: dict[str, dict[str, Any] | None] = Field(
        default={},
        description="Settings of steps that differ from the strategy's, by step and name, such as "
        '{"sum_threshold": {"first_threshold": 7}}; null leaves a step out.',
    )
    spectral_window: int | None = Field(
        default=None, ge=0, description="Number of the spectral window; without it there must be one only."
    )
    max_flagged: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Flagged part of the visibilities at which the task fails, with the flags kept: at 1 if nothing "
        "is left.",
    )


class RestoreFlagsParams(BaseModel):
    """Which flags are to come back."""

    model_config = ConfigDict(extra="forbid")

    ms: Place = Field(description="Measurement Set that was flagged by `visibility.flag`.")
    version: int = Field(ge=0, description="Version of its record: 0 holds the flags as they were before the first.")
    spectral_window: int | None = Field(
        default=None, ge=0, description="Number of the spectral window; without it there must be one only."
    )


@executor("visibility.flag", runs_in="process")
def flag(ctx: RunContext, params: FlagParams) -> dict[str, Any]:
    """Flag a Measurement Set: what was not received, interference, and what goes with it.

    Flags only grow, and a version of the record in the set tells the reason of each.  The result counts them by reason,
    and names antennas that are dead.  An attempt after a killed one ends what that has begun.
    """
    from absurd.tasks.visibility.flagging.on_disk import flag_measurement_set
    from absurd.tasks.visibility.flagging.strategy import strategy_named

    done = flag_measurement_set(
        params.ms,
        strategy_named(params.strategy, params.steps),
        spectral_window=params.spectral_window,
        key=str(ctx.task_id),
        scratch=ctx.scratch,
        told=lambda rows, total: ctx.progress(rows, total, "rows"),
    )
    told = _told(done, params.ms)
    if told["flagged_part"] >= params.max_flagged:
        reasons = ", ".join(f"{name} {count}" for name, count in told["by_first_reason"].items())
        raise DataError(
            f"{told['flagged_part']:.1%} of the visibilities of {params.ms} are flagged ({reasons})",
            advice="look at what was recorded; the record of flags has the state before",
            **told,
        )
    ctx.log.info(
        "visibilities_flagged",
        ms=params.ms,
        version=told["version"],
        flagged=told["flagged"],
        before=told["flagged_before"],
        dead=len(told["dead_antennas"]),
    )
    return told


@executor("visibility.restore_flags", runs_in="process")
def restore_flags(ctx: RunContext, params: RestoreFlagsParams) -> dict[str, Any]:
    """Give a Measurement Set the flags of an earlier version of its record.

    That is a version of its own; no other is lost, nor flags that other programs have set since.
    """
    from absurd.tasks.visibility.flagging.on_disk import restore_flags as restore

    done = restore(params.ms, params.version, spectral_window=params.spectral_window, key=str(ctx.task_id))
    ctx.log.info("flags_restored", ms=params.ms, version=done.version.number, restored=params.version)
    return _told(done, params.ms)


def _told(done: Done, path: str) -> dict[str, Any]:
    return {"ms": path, "version": done.version.number, **done.version.report}
