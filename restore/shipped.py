"""Where the files that ship beside the code lie: weights, pipelines and configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from restore.errors import RestoreError

Kind = Literal["weights", "pipelines", "configs"]


def data_folder(kind: Kind) -> Path:
    """Find a folder of shipped files, in an installed package or in a checkout.

    A wheel holds them in `restore/_data/`; an editable install has only the repository root.

    Raises:
        RestoreError: Neither place has it, so the installation is incomplete.
    """
    package = Path(__file__).parent
    places = [package / "_data" / kind, package.parent / kind]
    for place in places:
        if place.is_dir():
            return place
    raise RestoreError(f"the shipped {kind} are in neither {places[0]} nor {places[1]}; install restore again")
