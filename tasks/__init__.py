"""The domain: what tasks do.  Kernels need no queue; the `executors` modules put them on it."""

EXECUTOR_MODULES = (
    "absurd.tasks.calibration.executors",
    "absurd.tasks.cutout.executors",
    "absurd.tasks.export.executors",
    "absurd.tasks.export.butler.executors",
    "absurd.tasks.imaging.executors",
    "absurd.tasks.imaging.mosaicking.executors",
    "absurd.tasks.maintenance.executors",
    "absurd.tasks.photometry.executors",
    "absurd.tasks.pipeline.executors",
    "absurd.tasks.qa.executors",
    "absurd.tasks.session.executors",
    "absurd.tasks.visibility.executors",
)
"""Modules that register the executors shipped with the platform when they are imported."""
