"""Pipelines: files and `--set stage.field=value`, read into the frozen dataclasses that are the stages.

Every complaint says where a setting was given: the line of the file, or the option.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from restore import settings_file
from restore.errors import ConfigError
from restore.settings_file import unknown
from restore.shipped import data_folder
from restore.stage import Stage
from restore.yaml12 import Dumper, Loader

Table = Mapping[str, type[Stage]]
"""Stages by the name that a pipeline file calls them."""


@dataclass
class _Step:
    """A stage as written in a pipeline file, not yet checked."""

    name: str
    where: str
    """Place in the file, and the options that change it."""
    settings: dict[str, object] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    """Where each setting was given."""

    def put(self, name: str, value: object, where: str) -> None:
        """Write a setting; of several for one field the last one counts."""
        self.settings[name], self.places[name] = value, where


def load_pipeline(path_or_name: str | Path, overrides: Sequence[str], stages: Table) -> tuple[Stage, ...]:
    """Read a pipeline: a YAML file with a list `stages`, each item the name of a stage and its settings.

    Args:
        path_or_name: A file that ends in .yaml or .yml, or the name of a shipped pipeline, e.g. ``film``.
        overrides: ``stage.field=value``, the value as YAML; of several for one field the last one counts.
        stages: What a pipeline may name.

    Raises:
        ConfigError: The file cannot be read, or a stage or setting is unknown, of the wrong type or out of range.
    """
    path = settings_file.find(path_or_name, data_folder("pipelines"), "pipeline")
    steps = _read_steps(path, stages)
    for override in overrides:
        _override(steps, override, path, stages)
    return tuple(
        settings_file.build(stages[step.name], step.settings, step.where, step.name, step.places) for step in steps
    )


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
    plain = {}
    for name, hint in settings_file.types_of(type(instance)).items():
        adapter = TypeAdapter[object](hint)
        try:
            plain[name] = adapter.dump_python(adapter.validate_python(getattr(instance, name)), mode="json")
        except ValidationError as error:
            raise ConfigError(settings_file.problem(error, f"{type(instance).__name__}.{name}")) from error
    return plain


def _read_steps(path: Path, stages: Table) -> list[_Step]:
    with settings_file.reading(path):
        loader = Loader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        return [_read_step(loader, item, path, stages) for item in _items(loader, root, path)]


def _items(loader: Loader, root: yaml.Node | None, path: Path) -> list[yaml.Node]:
    if isinstance(root, yaml.MappingNode):
        for key, value in loader.pairs(root):
            if key.value != "stages":
                raise ConfigError(f"{_place(path, key)}: unknown key {unknown(key.value, ['stages'])}")
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
        raise ConfigError(f"{where}: unknown stage {unknown(name.value, stages)}")
    if values is None or (isinstance(values, yaml.ScalarNode) and loader.construct_object(values) is None):
        return _Step(name.value, where)
    if not isinstance(values, yaml.MappingNode):
        raise ConfigError(f"{where}: the settings of {name.value} must be `field: value`")
    step = _Step(name.value, where)
    for key, value in loader.pairs(values):
        step.put(key.value, loader.construct_object(value, deep=True), _place(path, key))
    return step


def _override(steps: Sequence[_Step], override: str, path: Path, stages: Table) -> None:
    where = f"--set {override}"
    target, equals, text = override.partition("=")
    stage, dot, name = target.strip().partition(".")
    if not (equals and dot and name):
        raise ConfigError(f"{where}: expected STAGE.FIELD=VALUE, as in smooth.radius=3")
    chosen = [step for step in steps if step.name == stage]
    if not chosen:
        raise ConfigError(f"{where}: {path.name} has no stage {unknown(stage, [step.name for step in steps])}")
    if len(chosen) > 1:
        raise ConfigError(f"{where}: {path.name} has {stage} {len(chosen)} times; change the file instead")
    chosen[0].where += f", {where}"
    chosen[0].put(name, _parse(text, settings_file.types_of(stages[stage]).get(name, Any)), where)


def _parse(text: str, hint: Any) -> object:
    """Read what stands after `=`: as YAML if it is, and of the right type; else as the text that it is."""
    try:
        value: object = yaml.load(text, Loader)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        return value if text.lstrip().startswith(("'", '"')) else text
    return text if _fits(text, hint) and not _fits(value, hint) else value


def _fits(value: object, hint: Any) -> bool:
    try:
        settings_file.converted(value, hint, "", "")
    except ConfigError:
        return False
    return True


def _place(path: Path, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"
