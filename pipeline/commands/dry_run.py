"""Is every training of a configuration possible, and what would it take?

Composes the configuration without touching params.yaml and runs three updates of every kind of
training on stand-in images. So a wrong value shows in a minute, not after a day.
"""

from pipeline.commands import overrides_of


def main(words: list[str]) -> int:
    """Print what every training would take.

    Raises:
        UserError: see ``pipeline.dry_run.dry_run``.
    """
    overrides = overrides_of("dry_run", __doc__, words)
    from pipeline.dry_run import dry_run  # imports torch

    dry_run(overrides)
    return 0
