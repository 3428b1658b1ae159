"""Unpack, pair, cut and pack one source: data/raw/<source> -> data/prepared/<source>."""

from pipeline.config.params import Params
from pipeline.datasets.prepare import prepare
from pipeline.runtime.messages import library_messages_hidden
from pipeline.runtime.paths import prepared, raw
from pipeline.workflow.stage import run


def main(params: Params, source: str) -> None:
    """Prepare one source."""
    with library_messages_hidden():  # such as libpng's, of a photograph that an error names
        prepare(params.sources[source], raw(source), prepared(source))


if __name__ == "__main__":
    run(main)
