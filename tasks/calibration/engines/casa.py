"""CASA's gaincal and bandpass, in a process of a Python that has casatasks, which need not be this one."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from absurd.tasks.calibration.calibrator import CalibratorSolution
from absurd.tasks.calibration.casa_table import by_time_and_antenna
from absurd.tasks.calibration.gains import Gains, Kind
from absurd.tasks.calibration.rows import aligned
from absurd.tasks.calibration.settings import CalibratorSettings, GainSettings
from absurd.tasks.radio.errors import CalibrationError, DependencyError, ValidationError
from absurd.tasks.visibility.visibilities import Visibilities

_SCRIPT = Path(__file__).with_name("casa_script.py")
_NO_CASA = 3
"""How the script says that there is no casatasks."""
_SITE = """\
import importlib.util, os
_found = importlib.util.find_spec("casadata")
if _found and _found.submodule_search_locations:
    measurespath = os.path.join(list(_found.submodule_search_locations)[0], "__data__")
    datapath = [measurespath]
measures_auto_update = False
data_auto_update = False
nologger = True
logfile = "casa.log"
"""
"""Nothing is downloaded, and nothing is logged outside of the folder of the process."""


@dataclass(frozen=True, slots=True)
class CasaEngine:
    """Of spectral window 0, without robust weights; bandpass and gains once each, as CASA's own recipes have it."""

    python: str = sys.executable
    """Path of a Python with casatasks and casadata."""
    timeout_s: float = 1800.0
    name: str = "casatasks"

    def solve(
        self,
        visibilities: Visibilities,
        model: NDArray[Any],
        settings: CalibratorSettings,
        *,
        measurement_set: Path | None = None,
    ) -> CalibratorSolution:
        """As `Engine.solve`; the model is that of the Measurement Set."""
        if measurement_set is None or not measurement_set.is_dir():
            raise ValidationError("CASA reads a Measurement Set itself", advice="tell where it is (measurement_set)")
        with tempfile.TemporaryDirectory(prefix="absurd_casa_") as name:
            folder = Path(name)
            (folder / "site.py").write_text(_SITE, encoding="utf-8")
            job = {"ms": str(measurement_set.resolve()), "steps": casa_steps(settings)}
            (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
            self._run(folder)
            tables = {each: dict(np.load(folder / f"{each}.npz")) for each in ("bandpass", "gain")}
        bandpass = casa_gains("bandpass", tables["bandpass"], visibilities)
        gain = casa_gains("gain", tables["gain"], visibilities)
        if bandpass.flags.all() or gain.flags.all():
            raise CalibrationError("no gain passes: CASA has flagged all")
        return CalibratorSolution(bandpass, gain, 1, converged=True)

    def _run(self, folder: Path) -> None:
        environ = {**os.environ, "CASASITECONFIG": str(folder / "site.py"), "OMP_NUM_THREADS": "1"}
        with (folder / "said").open("wb") as said:
            # A group of its own, since CASA starts processes that its own end would not take along.
            process = subprocess.Popen(
                [self.python, str(_SCRIPT), "job.json"], cwd=folder, env=environ, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                code = process.wait(self.timeout_s)
            except subprocess.TimeoutExpired as error:
                raise CalibrationError(f"CASA had not ended after {self.timeout_s:g} s, and was ended") from error
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        told = (folder / "said").read_text(encoding="utf-8", errors="replace").strip()[-2000:]
        if code == _NO_CASA:
            raise DependencyError(
                f"{self.python} has no casatasks", advice="install casatasks and casadata there, or name another Python"
            )
        if code:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise CalibrationError(f"CASA ended with {how}: {told or 'it said nothing'}")


def casa_steps(settings: CalibratorSettings) -> list[dict[str, Any]]:
    """The calls, in order: task, the name of its table, the tables applied before, and its parameters."""
    steps: list[dict[str, Any]] = []
    before = []
    if settings.phase is not None:
        steps.append({"task": "gaincal", "table": "phase", "apply": [], "with": _parameters(settings.phase)})
        before = ["phase"]
    bandpass = {
        **_parameters(settings.bandpass),
        "bandtype": "B",
        "fillgaps": settings.bandpass.fill_gaps,
        "solnorm": settings.normalises,
    }
    del bandpass["calmode"]
    steps.append({"task": "bandpass", "table": "bandpass", "apply": before, "with": bandpass})
    gain = {**_parameters(settings.gain), "gaintype": "G", "solnorm": settings.gain.normalise}
    steps.append({"task": "gaincal", "table": "gain", "apply": ["bandpass"], "with": gain})
    return steps


def casa_gains(kind: Kind, table: Mapping[str, NDArray[Any]], visibilities: Visibilities) -> Gains:
    """Gains of the columns of a calibration table of CASA, arrays with the row first."""
    names, frequencies = visibilities.array.names, visibilities.frequencies_hz
    hands = aligned(visibilities.correlations)
    _, channels, polarisations = table["CPARAM"].shape
    if polarisations < len(hands) or (kind == "bandpass" and channels != len(frequencies)):
        raise CalibrationError(f"CASA's {kind} has {channels} channels and {polarisations} polarisations")
    own = {name: each[..., : len(hands)] if each.ndim == 3 else each for name, each in table.items()}
    found = by_time_and_antenna(own, own["CPARAM"], own["SNR"], (len(names), len(hands)))
    reference = table["ANTENNA2"][found.row_of_time]
    if kind == "gain":
        frequencies = np.array([frequencies.mean()])
    centre = visibilities.phase_centres[int(visibilities.field[len(visibilities.field) // 2])]
    lost = [names[each] for each in np.flatnonzero(found.flags.all(axis=(0, 2, 3)))]
    told = (f"{len(lost)} of {len(names)} antennas have no solution: {', '.join(lost[:8])}",) if lost else ()
    return Gains(
        kind,
        found.values,
        found.flags,
        found.snr,
        found.time_s,
        table["INTERVAL"][found.row_of_time].astype(np.float64),
        frequencies,
        hands,
        names,
        tuple(names[each] if 0 <= each < len(names) else names[0] for each in reference.tolist()),
        centre.name,
        centre.ra_rad,
        centre.dec_rad,
        told,
    )


def _parameters(settings: GainSettings) -> dict[str, Any]:
    least, most = settings.uv_range_wavelengths
    lengths = ""
    if least > 0 or most < math.inf:
        lengths = f">{least:g}lambda" if most == math.inf else f"{least:g}~{most:g}lambda"
    solint = {0.0: "int", math.inf: "inf"}.get(settings.interval_s, f"{settings.interval_s:g}s")
    return {
        "solint": solint,
        "combine": ",".join(each for each in ("scan", "field") if each in settings.combine),
        "refant": ",".join(settings.reference),
        "minsnr": settings.min_snr,
        "minblperant": settings.min_baselines,
        "uvrange": lengths,
        "calmode": settings.mode,
    }
