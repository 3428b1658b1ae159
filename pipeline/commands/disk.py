"""How much disk do the published data sets of a configuration take?

Computed from pipeline/conf/sources: archives by their published sizes, or rough ones; packed images
by their number, their size, how they are cut, and the limits that are set. Nothing is fetched.
"""

from pipeline.commands import overrides_of
from pipeline.dry_run.disk import show


def main(words: list[str]) -> int:
    """Print the table.

    Raises:
        UserError: the configuration is wrong.
    """
    show(overrides_of("disk", __doc__, words))
    return 0
