"""The suites, and the modules with their jobs."""

from importlib import import_module

from rangeio_bench.jobs.job import Job

SUITES: dict[str, tuple[str, ...]] = {
    "tables": ("tables",),
    "tensors": ("arrays", "models", "hdf5", "pytorch"),
}
"""Modules of this package by suite."""


def jobs_of(suite: str) -> list[Job]:
    """The jobs of a suite, in the order of its modules."""
    modules = [import_module(f"rangeio_bench.jobs.{name}") for name in SUITES[suite]]
    return [job for module in modules for job in module.JOBS]


def find(job_id: str) -> Job:
    """The job of this name."""
    return next(job for suite in SUITES for job in jobs_of(suite) if job.id == job_id)
