"""Noise-space domain adaptation for image restoration, as a reproducible pipeline.

Imports go one way, in the order in which the data flows:
config, sources, store, degradations, batches, models, diffusion, adaptation,
training, restoration, metrics, evaluation, statistics, report.
"""

import os
from pathlib import Path

CACHES = {
    "XDG_CACHE_HOME": ".",  # Snakemake; torch, which would keep downloaded weights there
    "MPLCONFIGDIR": "matplotlib",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",  # train.compile
}
"""Environment variables of libraries that keep files, and where in .cache if nobody has said."""

_checkout = Path(__file__).parents[1]
if (_checkout / "dvc.yaml").is_file():  # else it is installed, and these places are the user's
    for _name, _folder in CACHES.items():
        # nothing is left outside of it: homes are small, and may not be written to in a job
        os.environ.setdefault(_name, str(_checkout / ".cache" / _folder))
