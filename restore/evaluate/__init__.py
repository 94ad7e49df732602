"""Judge generators: photographs and films, coloured from their grey, against themselves.

* `run`        `evaluate`, all of it; `contest` what is wanted, `of_photos` and `of_film` the two kinds of sources
* `photos`     the fixed protocol for photographs, which training uses too: `truths`, `colorize`, `score`
* `judge`      scores of pictures, with `tally` and `frechet` for whole sets; `motion` for films as they run
* `sets`       photographs as they are judged; `films` frames in the colours that the pipeline gives them
* `report`     the table; `gallery`, `page` and `files` what is written
"""

from __future__ import annotations

from restore.evaluate.judge import Scores
from restore.evaluate.report import Report
from restore.evaluate.run import evaluate

__all__ = ["Report", "Scores", "evaluate"]
