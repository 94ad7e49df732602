from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import restore

ROOT = Path(restore.__file__).parent


def _imports() -> dict[str, set[str]]:
    """Return what each module of the package imports of it, by dotted name."""
    names = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        found = graph.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "restore":
                for alias in node.names:
                    wanted = [f"{node.module}.{alias.name}", f"{node.module}.{alias.name}.__init__"]
                    found.update(next(([w] for w in wanted if w in names), [str(node.module)]))
    packages = {name.removesuffix(".__init__") for name in names if name.endswith(".__init__")}
    return {
        name: {f"{one}.__init__" if one in packages else one for one in found} - {name, "restore.__init__"}
        for name, found in graph.items()
    }


def test_imports_form_no_circle() -> None:
    order = list(graphlib.TopologicalSorter(_imports()).static_order())
    assert order.index("restore.errors") < order.index("restore.cli.__init__")


def test_the_way_of_a_frame_points_one_way() -> None:
    """A module imports only what stands above it here; what is not named here may stand anywhere without a circle."""
    order = ["errors", "clip", "color", "source.probe", "source.decode", "source.fields", "shots", "plan", "reel"]
    order += ["stage", "weights.__init__", "generators.__init__", "colorize.neural", "stages", "output.encode", "part"]
    order += ["output.join", "film", "setup", "cluster.__init__", "batch", "cli.__init__"]
    graph = _imports()
    for place, name in enumerate(order):
        reached: set[str] = set()
        waiting = [f"restore.{name}"]
        while waiting:
            for one in graph[waiting.pop()] - reached:
                reached.add(one)
                waiting.append(one)
        below = {f"restore.{later}" for later in order[place + 1 :]}
        assert not (reached & below - {f"restore.{name}"}), f"{name} imports {reached & below}"


def test_only_cluster_imports_distributed() -> None:
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] in ("distributed", "dask") for name in names):
                assert path.parent.name == "cluster"


def test_the_public_names_are_complete_and_sorted() -> None:
    assert restore.__all__ == sorted(restore.__all__, key=lambda name: (name.islower(), name))
    for name in restore.__all__:
        assert hasattr(restore, name)
    tree = ast.parse((ROOT / "__init__.py").read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("restore.")
        for alias in node.names
    }
    assert imported == set(restore.__all__)


def test_help_does_not_wait_for_torch() -> None:
    program = "import sys, restore.cli; print('torch' in sys.modules, hasattr(restore.cli, 'main'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'colourise'"):
        restore.colourise  # type: ignore[attr-defined]  # noqa: B018


def test_print_and_progress_bars_are_only_in_the_command_line() -> None:
    for path in ROOT.rglob("*.py"):
        if path.parent.name != "cli":
            names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
            assert not names & {"print", "tqdm"}, path


def test_no_module_is_longer_than_it_may_be() -> None:
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 500, path
