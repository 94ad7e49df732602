"""YAML as its users expect it: `on` is text, `1e-3` is a number, and a key may not be given twice."""

from __future__ import annotations

import re
from collections.abc import Mapping

import yaml

_NATURAL = r"(?:0|[1-9][0-9]*)"
_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", rf"[-+]?{_NATURAL}", "-+0123456789"),
    ("float", rf"[-+]?(?:\.[0-9]+|{_NATURAL}(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+0123456789."),
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
)
"""Tag, pattern and first letters of values without quotes, after the core schema of YAML 1.2.2 (chapter 10.3)."""

Resolvers = dict[str, list[tuple[str, re.Pattern[str]]]]


def _resolvers(inherited: Mapping[str, list[tuple[str, re.Pattern[str]]]]) -> Resolvers:
    table: Resolvers = {letter: list(known) for letter, known in inherited.items()}
    for tag, pattern, letters in _SCALARS:
        for letter in letters:
            table.setdefault(letter, []).append((f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$")))
    return table


class Loader(yaml.SafeLoader):
    """Reads plain data only, with text as keys."""

    yaml_implicit_resolvers = _resolvers({})

    def pairs(self, node: yaml.MappingNode) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
        """Return the nodes of a mapping's keys and values, which know their lines.

        Raises:
            yaml.MarkedYAMLError: A key is not text, or is given twice.
        """
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return list(node.value)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        return {key.value: self.construct_object(value, deep) for key, value in self.pairs(node)}


class Dumper(yaml.SafeDumper):
    """Writes what `Loader` reads back, and quotes what a YAML 1.1 reader would take for something else."""

    yaml_implicit_resolvers = _resolvers(yaml.SafeDumper.yaml_implicit_resolvers)

    def ignore_aliases(self, data: object) -> bool:
        return True
