"""What is known about weights: the registry that ships with restore, and what a user has imported."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from restore.errors import WeightsError
from restore.settings_file import unknown
from restore.shipped import data_folder


@dataclass(frozen=True)
class Entry:
    """What is known about one set of weights."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    """As the user writes it, e.g. ``deoldify-video``."""
    generator: str
    """Name of the network in the table of generators."""
    file: str
    """Name of the file, in the shipped folder or the user's."""
    bytes: int
    sha256: str
    """Of the file as published, in lower-case hexadecimal."""
    licence: str
    settings: dict[str, object] = field(default_factory=dict)
    """What the generator is built with, where it differs from its defaults."""
    urls: tuple[str, ...] = ()
    """Mirrors, the original first; none for weights that are shipped or the user's own."""
    origin: str = ""
    """Where the weights come from: a project's address, or the file that was imported."""
    citation: str = ""
    training: dict[str, object] = field(default_factory=dict)
    """How they were trained: recipe, data and whatever else is on record."""


def user_folder() -> Path:
    """Return the folder of fetched and imported weights: `restore/weights` in the user's cache folder.

    Source: XDG Base Directory Specification 0.8; a relative XDG_CACHE_HOME is to be ignored.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "restore" / "weights"


def default_name() -> str:
    """Return the name of the weights used when the user names none."""
    return str(_registry()["default"])


def published() -> dict[str, Entry]:
    """Read the registry that ships with restore.

    Raises:
        WeightsError: It cannot be read or is not right.
    """
    path = data_folder("weights") / "registry.toml"
    tables = _registry().get("weights", {})
    if not isinstance(tables, dict):
        raise WeightsError(f"{path}: expected tables [weights.NAME]")
    return {name: _entry({"name": name, **table}, path) for name, table in tables.items()}


def entries(folder: Path | None = None) -> dict[str, Entry]:
    """Read the registry, and what the user has imported.

    Args:
        folder: The user's weights; by default `user_folder()`.

    Raises:
        WeightsError: A registry or sidecar file cannot be read or is not right.
    """
    table = published()
    for path in sorted((folder or user_folder()).glob("*.toml")):
        name = path.stem
        if name in table:
            raise WeightsError(f"{path}: {name} is the name of published weights; rename this file")
        table[name] = _entry({"name": name, **_read_toml(path)}, path)
    return table


def known(name: str, folder: Path | None = None) -> Entry:
    """Return what is known about weights by name.

    Raises:
        WeightsError: Unknown; the message names those that are known.
    """
    table = entries(folder)
    if name in table:
        return table[name]
    raise WeightsError(f"there is no file and are no weights {unknown(name, table)}")


def sidecar(entry: Entry) -> str:
    """Return the TOML file that makes a user's weights known; its name is theirs.

    Raises:
        WeightsError: A setting is of a kind that TOML does not have.
    """
    lines = [f"{key} = {_toml(value)}" for key, value in asdict(entry).items() if key != "name"]
    return "\n".join(lines) + "\n"


def _registry() -> dict[str, object]:
    return _read_toml(data_folder("weights") / "registry.toml")


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


def _entry(content: Mapping[str, object], path: Path) -> Entry:
    try:
        return TypeAdapter(Entry).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise WeightsError(f"{path}, {content['name']}.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _toml(value: object) -> str:
    """Write a value as TOML: strings, numbers, lists and tables; a JSON string is a TOML basic string."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, (str, bool, int, float)):
        return json.dumps(value, ensure_ascii=False)
    raise WeightsError(f"the setting {value!r} cannot be kept; expected text, numbers, lists or tables")
