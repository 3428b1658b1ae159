"""Fetch the archives of one source into data/raw/<source>."""

from pipeline.config.params import Params
from pipeline.runtime.messages import library_messages_hidden
from pipeline.runtime.paths import raw
from pipeline.sources import download
from pipeline.workflow.stage import run


def main(params: Params, source: str) -> None:
    """Fetch one source."""
    with library_messages_hidden():  # such as libpng's, of a photograph that an error names
        download(params.sources[source], raw(source))


if __name__ == "__main__":
    run(main)
