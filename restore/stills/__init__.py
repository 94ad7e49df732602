"""Stills: photographs in TIFF, PNG, JPEG, WebP and DPX, read as one frame of luma, written with everything kept.

* `still`    what a still is; luma of R'G'B', R'G'B' of a painted clip
* `exif`     EXIF and TIFF tags
* `profile`  ICC profiles
* `tiff`, `png`, `jpeg`, `webp`, `dpx`    one codec each: a file to and from a `Picture`
* `kinds`    which files are stills
* `files`    reading and writing
"""

from __future__ import annotations

from restore.stills.files import check_output, read, write
from restore.stills.kinds import find_stills, is_still
from restore.stills.still import Metadata, Resolution, Still

__all__ = ["Metadata", "Resolution", "Still", "check_output", "find_stills", "is_still", "read", "write"]
