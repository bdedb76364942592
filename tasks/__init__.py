"""The domain: what tasks do.  Kernels need no queue; the `executors` modules put them on it."""

EXECUTOR_MODULES = {
    "absurd.tasks.calibration.executors": "radio",
    "absurd.tasks.catalog.executors": "radio",
    "absurd.tasks.cutout.executors": "astro",
    "absurd.tasks.export.executors": "export",
    "absurd.tasks.export.butler.executors": "butler",
    "absurd.tasks.imaging.executors": "radio",
    "absurd.tasks.imaging.mosaicking.executors": "radio",
    "absurd.tasks.maintenance.executors": None,
    "absurd.tasks.photometry.executors": "radio",
    "absurd.tasks.pipeline.executors": "radio",
    "absurd.tasks.qa.executors": "radio",
    "absurd.tasks.session.executors": "session",
    "absurd.tasks.visibility.executors": "radio",
}
"""Modules that register the executors shipped with the platform when they are imported, each with the extra that brings
what these need; None where the queue alone is enough."""
