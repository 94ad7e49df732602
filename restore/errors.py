"""The errors a user can cause.

Everything that a person can set right (a file, a setting, a disk) is a `RestoreError`, whose message says
what was expected, what was found and in which file. Programmer errors stay `ValueError` and `TypeError`.

* RestoreError
  + MediaError      a file or stream cannot be read, or cannot hold what it must hold
  + ConfigError     a setting, a pipeline, a profile or a combination of options is wrong
  + WeightsError    weights are unknown, missing, damaged or not what they say
  + StageError      a stage failed, or returned a clip that breaks what it declares
  + ClusterError    a scheduler or a worker is missing, lost, or not like the others
"""

from __future__ import annotations


class RestoreError(Exception):
    """Base of all errors that `restore` raises on purpose."""

    exit_code: int = 1
    """Exit status of a command that ends with it."""


class MediaError(RestoreError):
    """A file cannot be read or written, or is not what it should be.

    Attributes:
        path: The file, as the user named it.
    """

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message, path)  # positional, so it survives the pickle of a worker process
        self.message, self.path = message, path

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ConfigError(RestoreError):
    """A setting or a combination of options is wrong."""


class WeightsError(RestoreError):
    """Weights are unknown, missing, damaged, or do not fit their generator."""


class StageError(RestoreError):
    """A stage failed, or returned a clip that breaks what it declares.

    Attributes:
        stage: Name of the stage, as written in the pipeline file.
        span: First and last source frame it was given.
    """

    def __init__(self, message: str, stage: str, span: tuple[int, int]) -> None:
        super().__init__(message, stage, span)
        self.message, self.stage, self.span = message, stage, span

    def __str__(self) -> str:
        return f"{self.stage} on frames {self.span[0]}-{self.span[1]}: {self.message}"


class ClusterError(RestoreError):
    """A Dask scheduler does not answer or is lost, or a worker cannot do what this machine would do."""
