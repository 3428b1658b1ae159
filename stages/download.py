"""Fetch the archives of one source into data/raw/<source>."""

from pipeline.config.params import Params
from pipeline.runtime.paths import raw
from pipeline.sources import download
from pipeline.workflow.stage import run


def main(params: Params, source: str) -> None:
    """Fetch one source."""
    download(params.sources[source], raw(source))


if __name__ == "__main__":
    run(main)
