"""Settings files: YAML, read into the frozen dataclass whose fields say what may stand in it.

The name, type and default of a field are the only definition of a setting. Values are checked strictly, as JSON has
them: `"3"` is no number, but a list serves for a tuple, text for a path, and `1` for `1.0`. Every complaint is one line
with the file and the full name of the setting: ``x.yaml: gan.content.feature: input should be a valid number``.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from restore.errors import ConfigError
from restore.yaml12 import Loader

Settings = TypeVar("Settings")


def find(name: str | Path, shipped: Path, what: str) -> Path:
    """Return the path of a settings file: the user's, which ends in .yaml or .yml, or by name a shipped one.

    Args:
        name: A path, or a name.
        shipped: Folder of the shipped ones.
        what: What the file describes, in a word, for the complaint.

    Raises:
        ConfigError: None of this name is shipped. Whether a path is there is not looked at.
    """
    if (path := Path(name)).suffix in (".yaml", ".yml"):
        return path
    known = {file.stem: file for file in sorted(shipped.glob("*.yaml"))}
    if str(name) not in known:
        raise ConfigError(f"there is no {what} {unknown(str(name), known)}; a file of your own must end in .yaml")
    return known[str(name)]


def read(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings, not yet checked.

    Raises:
        ConfigError: It cannot be read, is not YAML in UTF-8, or does not hold settings by name.
    """
    with reading(path):
        return parsed(path.read_text(encoding="utf-8"), path)


def parsed(text: str, where: str | Path) -> dict[str, Any]:
    """Read settings from YAML text, not yet checked.

    Raises:
        ConfigError: It is not YAML, or does not hold settings by name.
    """
    with reading(where):
        return _by_name(yaml.load(text, Loader), str(where))


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Make what is wrong with a YAML file a ConfigError with the name of the file, and the line where it is known."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: {error.problem}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise ConfigError(f"{path}: cannot be read: {reason}") from error


def build(
    cls: type[Settings],
    values: Mapping[str, Any],
    where: str | Path,
    within: str = "",
    places: Mapping[str, str] | None = None,
) -> Settings:
    """Make a dataclass of the values that somebody wrote, and of those in it that are dataclasses too.

    Args:
        cls: The dataclass.
        values: By name of the field; plain data, as YAML has it.
        where: The file, for complaints.
        within: Full name of what the values are the settings of; nothing for a whole file.
        places: Where single settings were given, if not at `where`.

    Raises:
        ConfigError: A name is unknown, a setting is missing, or a value has the wrong type or is refused by the class.
    """
    types, places = types_of(cls), places or {}
    for name in values:
        if name not in types:
            raise ConfigError(f"{_joined(places.get(name, where), within)}: unknown setting {unknown(name, types)}")
    if missing := [name for name in _required(cls) if name not in values]:
        raise ConfigError(f"{_joined(where, within)}: {' and '.join(missing)} must be given")
    made = {
        name: converted(value, types[name], places.get(name, where), f"{within}.{name}" if within else name)
        for name, value in values.items()
    }
    try:
        return cls(**made)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{_joined(where, within)}: {error}") from error


def converted(value: object, hint: Any, where: str | Path, name: str) -> Any:
    """Return a value in the type of its field, which may hold dataclasses, alone, in tuples or by name.

    Raises:
        ConfigError: It is not of this type.
    """
    origin, among = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return build(hint, _by_name(value, _joined(where, name)), where, name)
    if origin in (Union, UnionType) and len(among) == 2 and NoneType in among:
        kind = among[0] if among[1] is NoneType else among[1]
        return None if value is None else converted(value, kind, where, name)
    if origin is tuple and among[1:] == (...,) and isinstance(value, list):
        return tuple(converted(one, among[0], where, f"{name}[{place}]") for place, one in enumerate(value))
    if origin is dict and among[0] is str and isinstance(value, dict):
        return {key: converted(one, among[1], where, f"{name}.{key}") for key, one in value.items()}
    try:
        return TypeAdapter[object](hint).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ConfigError(f"{where}: {problem(error, name)}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {name}: expected text, numbers, lists or mappings (found {value!r})") from error


def types_of(cls: type) -> dict[str, Any]:
    """Return the type of every setting of a dataclass, by name."""
    hints = get_type_hints(cls, include_extras=True)
    return {one.name: hints[one.name] for one in fields(cls) if one.init}


def problem(error: ValidationError, name: str) -> str:
    """Put what pydantic found about a setting into one line, with the place inside a list."""
    return "; ".join(
        f"{name}{''.join(f'[{key}]' for key in one['loc'] if isinstance(key, int))}: "
        f"{one['msg'][:1].lower()}{one['msg'][1:]} (found {one['input']!r})"
        for one in error.errors()
    )


def unknown(name: str, known: Iterable[str]) -> str:
    """Write a name that is not known, the one that was probably meant, and all that are known."""
    names = list(dict.fromkeys(known))
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{name!r} ({hint}known: {', '.join(names) or 'none'})"


def _required(cls: type) -> list[str]:
    return [one.name for one in fields(cls) if one.init and one.default is MISSING and one.default_factory is MISSING]


def _by_name(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{place}: expected settings as `name: value`, found {reprlib.repr(value)}")
    return value


def _joined(where: str | Path, within: str) -> str:
    return f"{where}: {within}" if within else str(where)
