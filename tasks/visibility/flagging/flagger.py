"""Flagging: every step of a strategy over a recording, a block of baselines at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.visibility.flagging.aoflagger import aoflag
from absurd.tasks.visibility.flagging.dead import count_pairs, dead_antennas, flagged_parts
from absurd.tasks.visibility.flagging.detect import (
    Waterfall,
    by_sigma_clip,
    by_sum_threshold,
    coarse_deviations,
    of_amplitudes,
)
from absurd.tasks.visibility.flagging.elementary import add, amplitudes, edges, flag_values
from absurd.tasks.visibility.flagging.grow import grow
from absurd.tasks.visibility.flagging.low_pass import Bools
from absurd.tasks.visibility.flagging.recording import Held, InMemory, Recording, Store, with_input
from absurd.tasks.visibility.flagging.strategy import Clip, Strategy, SumThreshold, Values
from absurd.tasks.visibility.flagging.together import changes, gather
from absurd.tasks.visibility.flagging.waterfalls import Waterfalls, waterfalls
from absurd.tasks.visibility.flags import INTERFERENCE, SEARCHED, Reason, Reasons, histogram, tally
from absurd.tasks.visibility.visibilities import Visibilities

BYTES_AT_ONCE = 256 << 20
"""Of a block: its visibilities, as they are in memory."""
BYTES_OF_VISIBILITY = 8 + 1 + 4 + 2
"""Value, flag, weight, reasons."""
FEWEST_TIMES = 5
"""Of a recording, for the mean of all baselines to be compared among times."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was flagged, in numbers of visibilities (row, channel, correlation)."""

    visibilities: int
    before: int
    """Flagged when it began."""
    after: int
    reasons: dict[str, int]
    """That have a reason, by its name; one may have several."""
    first: dict[str, int]
    """As above, each for the reason alone that came first."""
    dead: tuple[tuple[str, int], ...]
    """Antenna and number of the correlation."""
    parts: dict[str, float]
    """Of each antenna's visibilities with others, without what is the same for all, the flagged part."""

    @property
    def new(self) -> int:
        return self.after - self.before

    def told(self, correlations: tuple[str, ...]) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "visibilities": self.visibilities,
            "flagged_before": self.before,
            "flagged": self.after,
            "flagged_part": self.after / self.visibilities if self.visibilities else 0.0,
            "by_reason": self.reasons,
            "by_first_reason": self.first,
            "dead_antennas": [{"antenna": name, "correlation": correlations[at]} for name, at in self.dead],
            "flagged_part_of_antenna": {name: round(part, 6) for name, part in self.parts.items()},
        }


@dataclass
class _Seen:
    """What all blocks together tell."""

    times: NDArray[np.int64]
    """(row,), the number of the time among all times."""
    total: NDArray[np.float64]
    count: NDArray[np.int64]
    pairs: NDArray[np.int64]
    """(antenna, antenna, correlation)."""
    found: NDArray[np.int64]
    """Of these, flagged by this search or by what it goes by."""
    flagged: NDArray[np.int64]
    """Of these, flagged by that or by an earlier search."""
    before: int = 0
    combinations: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1 << 16, np.int64))


def flag(
    visibilities: Visibilities, strategy: Strategy | None = None, *, earlier: Reasons | None = None
) -> tuple[Visibilities, Reasons, Report]:
    """Flag visibilities: the same with more flags, the reasons of all flags, and their numbers.

    Flags only grow.  `earlier`, (row, channel, correlation), are reasons of flags that are known: of what is `SEARCHED`
    the search begins anew, and adds to it.
    """
    strategy = strategy or Strategy()
    recording = InMemory(visibilities, earlier)
    order = waterfalls(recording.antenna1, recording.antenna2, recording.scan, recording.time_s, recording.exposure_s)
    store = Held(*visibilities.data.shape)
    report = flag_recording(recording, order, strategy, store)
    reasons = np.empty_like(store.all)
    reasons[order.rows] = store.all
    return visibilities.with_(flags=reasons != 0), reasons, report


def flag_recording(
    recording: Recording,
    order: Waterfalls,
    strategy: Strategy,
    store: Store,
    *,
    bytes_at_once: int = BYTES_AT_ONCE,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Flag a recording and put the reasons into the store: first each waterfall by itself, then by what all tell.

    What an earlier search has found is kept, and takes no part, so the same strategy again changes nothing.
    `told` is called after each block with rows done and to do, of both times that rows are gone through.
    """
    bytes_of_row = recording.channels * recording.correlations * BYTES_OF_VISIBILITY
    blocks = list(order.blocks(bytes_of_row, bytes_at_once))
    seen = _seen(recording, strategy)
    rows_in_all = 2 * len(order.rows)
    for first, last in blocks:
        low, high = int(order.starts[first]), int(order.starts[last])
        store.write(low, _search(recording, order, (first, last), strategy, seen))
        told(high, rows_in_all)
    together = _together(strategy, seen)
    for first, last in blocks:
        low, high = int(order.starts[first]), int(order.starts[last])
        rows = order.rows[low:high]
        reasons = store.read(low, high)
        if together is not None:
            free = (reasons == 0) | (reasons & int(INTERFERENCE) != 0)
            reasons[free & together[seen.times[rows]]] |= int(Reason.TOGETHER)
        if strategy.grow is not None:
            settings = strategy.grow
            for start, end in _bounds(order, first, last):
                grow(
                    reasons[start:end],
                    settings.eta_time,
                    settings.eta_channel,
                    settings.time_part,
                    settings.channel_part,
                    settings.correlations,
                )
        known = recording.known(rows)
        pairs = recording.antenna1[rows], recording.antenna2[rows]
        count_pairs(reasons, known, *pairs, seen.pairs, seen.found, seen.flagged)
        reasons |= known
        seen.combinations += histogram(reasons)
        store.write(low, reasons)
        told(len(order.rows) + high, rows_in_all)
    dead = _bury(recording, order, strategy, store, seen, blocks)
    return _report(recording, seen, dead)


def _seen(recording: Recording, strategy: Strategy) -> _Seen:
    moments, times = np.unique(np.round(recording.time_s, 3), return_inverse=True)
    sums = (len(moments) if strategy.together else 0, recording.channels, recording.correlations)
    pairs = (len(recording.antennas), len(recording.antennas), recording.correlations)
    return _Seen(
        times.astype(np.int64),
        np.zeros(sums),
        np.zeros(sums, np.int64),
        np.zeros(pairs, np.int64),
        np.zeros(pairs, np.int64),
        np.zeros(pairs, np.int64),
    )


def _bounds(order: Waterfalls, first: int, last: int) -> list[tuple[int, int]]:
    """From and to of each waterfall of a block, in rows of the block."""
    starts = order.starts[first : last + 1] - order.starts[first]
    return list(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))


def _search(
    recording: Recording, order: Waterfalls, block: tuple[int, int], strategy: Strategy, seen: _Seen
) -> Reasons:
    """What each waterfall of a block tells by itself."""
    low, high = (int(order.starts[each]) for each in block)
    rows = order.rows[low:high]
    data, flags = recording.read(rows)
    reasons = with_input(recording.known(rows), flags)
    seen.before += int(np.count_nonzero(reasons))
    reasons &= np.uint16(0xFFFF ^ int(SEARCHED))
    values = strategy.values or Values(largest=np.inf, zeros=False, autos=False)
    clip = strategy.clip or Clip()
    flag_values(data, reasons, values.largest, values.zeros, clip.lowest, clip.highest)
    if values.autos:
        reasons[recording.antenna1[rows] == recording.antenna2[rows]] |= int(Reason.AUTO)
    if strategy.edges is not None:
        edge = strategy.edges
        at = edges(recording.channels, edge.channels, edge.subband_channels, edge.subband_edge)
        reasons[:, at] |= int(Reason.EDGE)
    if strategy.aoflagger is not None:
        some = recording.visibilities(rows)
        reasons[aoflag(some.with_(flags=reasons != 0), strategy.aoflagger)] |= int(Reason.AOFLAGGER)
    for start, end in _bounds(order, *block):
        for correlation in range(recording.correlations):
            _search_one(data[start:end], reasons[start:end], correlation, strategy, seen, seen.times[rows[start:end]])
    return reasons


def _search_one(
    data: NDArray[np.complex64],
    reasons: Reasons,
    correlation: int,
    strategy: Strategy,
    seen: _Seen,
    times: NDArray[np.int64],
) -> None:
    """Find the interference of one correlation of a waterfall."""
    amplitude = np.empty(data.shape[:2], np.float32)
    usable: Bools = np.empty(data.shape[:2], np.bool_)
    if not amplitudes(data, reasons, correlation, amplitude, usable):
        return
    waterfall = of_amplitudes(amplitude, usable, strategy.smooth)
    found = np.zeros(usable.shape, np.bool_)
    if strategy.sigma_clip is not None:
        found = by_sigma_clip(waterfall, strategy.smooth, strategy.sigma_clip)
        add(reasons, correlation, found, int(Reason.SIGMA))
    if strategy.sum_threshold is not None:
        found = by_sum_threshold(waterfall, strategy.smooth, strategy.sum_threshold)
        add(reasons, correlation, found, int(Reason.SUM))
    if strategy.together is not None:
        far = coarse_deviations(waterfall, found, strategy.smooth)
        gather(far, usable, times, correlation, seen.total, seen.count)


def _together(strategy: Strategy, seen: _Seen) -> Bools | None:
    """(time, channel, correlation): where all baselines stand out together."""
    settings = strategy.together
    if settings is None or len(seen.total) < FEWEST_TIMES:
        return None
    mean, usable = changes(seen.total, seen.count, settings.least_baselines)
    found = np.zeros(mean.shape, np.bool_)
    for correlation in range(mean.shape[2]):
        values = np.ascontiguousarray(mean[..., correlation])
        waterfall = Waterfall(values, values, np.ascontiguousarray(usable[..., correlation]))
        smooth = replace(strategy.smooth, channels=settings.channels)
        limit = SumThreshold(first_threshold=settings.first_threshold)
        found[..., correlation] = by_sum_threshold(waterfall, smooth, limit, only_above=True)
    return found


def _bury(
    recording: Recording,
    order: Waterfalls,
    strategy: Strategy,
    store: Store,
    seen: _Seen,
    blocks: list[tuple[int, int]],
) -> NDArray[np.bool_]:
    """Flag all of the antennas that are dead; (antenna, correlation)."""
    if strategy.dead is None:
        return np.zeros((len(recording.antennas), recording.correlations), np.bool_)
    dead = dead_antennas(seen.pairs, seen.found, strategy.dead.flagged)
    if not dead.any():
        return dead
    for first, last in blocks:
        low, high = int(order.starts[first]), int(order.starts[last])
        rows = order.rows[low:high]
        at = dead[recording.antenna1[rows]] | dead[recording.antenna2[rows]]
        if not at.any():
            continue
        reasons = store.read(low, high).copy()
        seen.combinations -= histogram(reasons)
        reasons |= np.where(at, np.uint16(Reason.DEAD), np.uint16(0))[:, None, :]
        seen.combinations += histogram(reasons)
        store.write(low, reasons)
    seen.flagged = np.where(dead[:, None] | dead[None], seen.pairs, seen.flagged)
    return dead


def _report(recording: Recording, seen: _Seen, dead: NDArray[np.bool_]) -> Report:
    total = int(seen.combinations.sum())
    parts = flagged_parts(seen.pairs.sum(axis=2, keepdims=True), seen.flagged.sum(axis=2, keepdims=True))[:, 0]
    return Report(
        visibilities=total,
        before=seen.before,
        after=total - int(seen.combinations[0]),
        reasons=tally(seen.combinations),
        first=tally(seen.combinations, first=True),
        dead=tuple((recording.antennas[at], int(correlation)) for at, correlation in np.argwhere(dead)),
        parts={name: float(part) for name, part in zip(recording.antennas, parts, strict=True) if not np.isnan(part)},
    )
