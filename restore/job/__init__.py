"""Scheduled jobs: many sources, one configuration, nobody watching."""

from restore.job.config import JobConfig, load
from restore.job.figures import Figures, published
from restore.job.job import Exit, run_job
from restore.job.report import Entry, RunReport

__all__ = ["Entry", "Exit", "Figures", "JobConfig", "RunReport", "load", "published", "run_job"]
