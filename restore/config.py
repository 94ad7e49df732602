"""Settings: pipeline files and `--set stage.field=value`, read into the frozen dataclasses that are the stages.

The fields of a stage are the only definition of its settings: name, type and default. What a file or an option gives
is checked against them strictly (`radius: "3"` is not a number), and every complaint says where the setting was given.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from restore.errors import ConfigError
from restore.shipped import data_folder
from restore.stage import Stage
from restore.yaml12 import Dumper, Loader

Table = Mapping[str, type[Stage]]
"""Stages by the name that a pipeline file calls them."""


@dataclass(frozen=True)
class _Given:
    """A value somebody wrote, and where."""

    value: object
    where: str
    text: str | None = None
    """What stands after `=` on a command line, which has no way to say that 2024 is a name."""


@dataclass
class _Step:
    """A stage as written in a pipeline file, not yet checked."""

    name: str
    where: str
    settings: dict[str, _Given]


def load_pipeline(path_or_name: str | Path, overrides: Sequence[str], stages: Table) -> tuple[Stage, ...]:
    """Read a pipeline: a YAML file with a list `stages`, each item the name of a stage and its settings.

    Args:
        path_or_name: A file that ends in .yaml or .yml, or the name of a shipped pipeline, e.g. ``film``.
        overrides: ``stage.field=value``, the value as YAML; of several for one field the last one counts.
        stages: What a pipeline may name.

    Raises:
        ConfigError: The file cannot be read, or a stage or setting is unknown, of the wrong type or out of range.
    """
    path = _pipeline_file(path_or_name)
    steps = _read_steps(path, stages)
    for override in overrides:
        _override(steps, override, path)
    return tuple(_build(stages[step.name], step) for step in steps)


def dump_pipeline(stages: Iterable[Stage]) -> str:
    """Write stages as a pipeline file with all their settings; it loads back to equal stages.

    Raises:
        ConfigError: A setting has a value that its type does not allow.
    """
    content = {"stages": [{stage.name: _settings_of(stage)} for stage in stages]}
    return yaml.dump(content, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def settings_hash(*parts: object) -> str:
    """Return the SHA-256, in hexadecimal, of whatever decides a result.

    It is the same in every process and on every machine, whatever the order of the keys of a mapping.

    Args:
        parts: Stages and other dataclasses, mappings with text as keys, sequences, paths, text, numbers, None.

    Raises:
        TypeError: Something else, of which a stable text is not known.
        ValueError: A number is not finite.
    """
    text = json.dumps(_canonical(parts), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: object) -> object:
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, "name", type(value).__name__), _settings_of(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot hash a {type(value).__name__}: {value!r}")


def _settings_of(instance: object) -> dict[str, object]:
    """Return the settings of a dataclass as plain data, numbers in the type of their field."""
    hints = get_type_hints(type(instance), include_extras=True)
    plain = {}
    for setting in fields(instance):  # type: ignore[arg-type]
        adapter = TypeAdapter[object](hints[setting.name])
        value = getattr(instance, setting.name)
        try:
            plain[setting.name] = adapter.dump_python(adapter.validate_python(value), mode="json")
        except ValidationError as error:
            raise ConfigError(
                f"{type(instance).__name__}.{setting.name}: {_problem(error)} (found {value!r})"
            ) from error
    return plain


def _pipeline_file(path_or_name: str | Path) -> Path:
    path = Path(path_or_name)
    if path.suffix in (".yaml", ".yml"):
        return path
    shipped = {file.stem: file for file in sorted(data_folder("pipelines").glob("*.yaml"))}
    if str(path_or_name) not in shipped:
        raise ConfigError(
            f"there is no pipeline {_unknown(str(path_or_name), shipped)}; a file of your own must end in .yaml"
        )
    return shipped[str(path_or_name)]


def _read_steps(path: Path, stages: Table) -> list[_Step]:
    try:
        loader = Loader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        return [_read_step(loader, item, path, stages) for item in _items(loader, root, path)]
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line}: {error.problem}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path}: the pipeline cannot be read: {reason}") from error


def _items(loader: Loader, root: yaml.Node | None, path: Path) -> list[yaml.Node]:
    if isinstance(root, yaml.MappingNode):
        for key, value in loader.pairs(root):
            if key.value != "stages":
                raise ConfigError(f"{_place(path, key)}: unknown key {_unknown(key.value, ['stages'])}")
            if isinstance(value, yaml.SequenceNode) and value.value:
                return list(value.value)
    raise ConfigError(f"{path}: expected a list `stages:` with at least one stage")


def _read_step(loader: Loader, item: yaml.Node, path: Path, stages: Table) -> _Step:
    """Read `name`, `name:` or `name: {field: value}`."""
    where, name, values = _place(path, item), item, None
    if isinstance(item, yaml.MappingNode) and len(loader.pairs(item)) == 1:
        name, values = loader.pairs(item)[0]
    if not isinstance(name, yaml.ScalarNode):
        raise ConfigError(f"{where}: expected one stage, as in `- smooth: {{radius: 3}}`")
    if name.value not in stages:
        raise ConfigError(f"{where}: unknown stage {_unknown(name.value, stages)}")
    if values is None or (isinstance(values, yaml.ScalarNode) and loader.construct_object(values) is None):
        return _Step(name.value, where, {})
    if not isinstance(values, yaml.MappingNode):
        raise ConfigError(f"{where}: the settings of {name.value} must be `field: value`")
    settings = {
        key.value: _Given(loader.construct_object(value, deep=True), _place(path, key))
        for key, value in loader.pairs(values)
    }
    return _Step(name.value, where, settings)


def _override(steps: Sequence[_Step], override: str, path: Path) -> None:
    where = f"--set {override}"
    target, equals, text = override.partition("=")
    stage, dot, name = target.strip().partition(".")
    if not (equals and dot and name):
        raise ConfigError(f"{where}: expected STAGE.FIELD=VALUE, as in smooth.radius=3")
    chosen = [step for step in steps if step.name == stage]
    if not chosen:
        raise ConfigError(f"{where}: {path.name} has no stage {_unknown(stage, [step.name for step in steps])}")
    if len(chosen) > 1:
        raise ConfigError(f"{where}: {path.name} has {stage} {len(chosen)} times; change the file instead")
    chosen[0].settings[name] = _Given(_parse(text), where, text)


def _parse(text: str) -> object:
    """Read what stands after `=`: as YAML if it is, else as the text that it is, to the last letter."""
    try:
        value: object = yaml.load(text, Loader)
    except yaml.YAMLError:
        return text
    return text if isinstance(value, str) and not text.lstrip().startswith(("'", '"')) else value


def _build(kind: type[Stage], step: _Step) -> Stage:
    known = {field.name: field for field in fields(kind) if field.init}  # type: ignore[arg-type]
    for name, given in step.settings.items():
        if name not in known:
            raise ConfigError(f"{given.where}: {step.name} has no setting {_unknown(name, known)}")
    missing = [
        name
        for name, field in known.items()
        if name not in step.settings and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise ConfigError(f"{step.where}: {step.name} needs {', '.join(missing)}")
    hints = get_type_hints(kind, include_extras=True)
    values = {name: _check(f"{step.name}.{name}", hints[name], given) for name, given in step.settings.items()}
    try:
        return kind(**values)
    except ValueError as error:
        places = dict.fromkeys(
            [step.where, *(given.where for given in step.settings.values() if given.text is not None)]
        )
        raise ConfigError(f"{', '.join(places)}: {step.name}: {error}") from error


def _check(label: str, hint: Any, given: _Given) -> object:
    """Check a value against the type of its field, strictly, but with lists for tuples as YAML has them."""
    adapter = TypeAdapter[object](hint)
    readings = [given.value] if given.text is None else [given.value, given.text]
    problem = ""
    for value in readings:
        try:
            return adapter.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            problem = problem or _problem(error)
        except (TypeError, ValueError):
            problem = "expected text, numbers, lists or mappings"
    raise ConfigError(f"{given.where}: {label}: {problem} (found {given.value!r})")


def _problem(error: ValidationError) -> str:
    """Put what pydantic found into one line, with the place inside a list or mapping."""
    return "; ".join(
        "".join(f"[{key}]" for key in item["loc"] if isinstance(key, int)) + item["msg"][:1].lower() + item["msg"][1:]
        for item in error.errors()
    )


def _unknown(name: str, known: Iterable[str]) -> str:
    names = list(dict.fromkeys(known))
    close = get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{name!r} ({hint}known: {', '.join(names) or 'none'})"


def _place(path: Path, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"
