"""Is anything wrong with this machine or clone? Better known before a long run than during it.

A line for each thing looked at: 'ok' with what was found, or 'fix' with what to do. The settings
are those of params.yaml, or with overrides what they compose. Status 1 says that there is a 'fix'.
"""

import tempfile
from pathlib import Path

from pipeline.commands import overrides_of
from pipeline.config.compose import compose
from pipeline.config.params import PARAMS_FILE
from pipeline.config.read import read_params


def main(words: list[str]) -> int:
    """Print a line for each thing, and return 1 if one wants a remedy.

    Raises:
        UserError: the settings are wrong.
    """
    overrides = overrides_of("doctor", __doc__, words)
    from pipeline.dry_run.doctor import examine

    with tempfile.TemporaryDirectory() as folder:
        path = PARAMS_FILE
        if overrides or not path.is_file():
            path = Path(folder) / PARAMS_FILE.name
            compose(overrides, path)
        params = read_params(path)
    well = True
    for finding in examine(params):
        print(finding, flush=True)
        well = well and finding.well
    return 0 if well else 1
