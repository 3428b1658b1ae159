"""Compose ``pipeline/conf`` into params.yaml, byte for byte as ``dvc exp run`` does."""

from pipeline.commands import overrides_of
from pipeline.config.compose import compose
from pipeline.workflow.one_snakemake import require_nobody_runs


def main(words: list[str]) -> int:
    """Write params.yaml.

    Raises:
        UserError: see ``pipeline.config.compose``; or Snakemake runs here.
    """
    overrides = overrides_of("compose", __doc__, words)
    require_nobody_runs()
    compose(overrides)
    return 0
