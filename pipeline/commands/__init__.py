"""What people call: ``python -m pipeline COMMAND``, one module each; only arguments and wording."""

import argparse
import sys
from pathlib import Path

from pipeline.runtime.errors import UserError

COMMANDS = {
    "compose": "write params.yaml from pipeline/conf",
    "dry_run": "try three updates of every training: is it possible, how long, how much memory",
    "disk": "how much disk the published data sets take",
    "vary": "run a variation by Snakemake and keep it as an experiment of DVC",
    "restore": "restore photographs with a trained model",
    "export": "write a trained restorer as ONNX, and its model card",
    "watch": "the last rows and curves of a training that runs or has ended",
    "settings": "write docs/settings.md: every key with type, range, unit and values",
    "readme": "write the results and the picture of README.md",
    "compare": "two revisions or experiments side by side: settings and scores",
    "doctor": "what is wrong with this machine or clone, before a long run",
    "mend_lock": "put right what a kill leaves of DVC's lock files",
    "check_cache": "delete damaged objects of DVC's cache",
}
"""Names and purposes; each is a module here with ``main(words) -> exit status``."""


def program() -> str:
    """Return how the program was called: from a checkout, or as the installed script."""
    called = Path(sys.argv[0]).name
    return called if called == "noise-space" else "python -m pipeline"


def parser(name: str, text: str | None) -> argparse.ArgumentParser:
    """Return a parser for a command; its help begins with the text, line by line."""
    return argparse.ArgumentParser(
        prog=f"{program()} {name}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def overrides_of(name: str, text: str | None, words: list[str]) -> list[str]:
    """Return the overrides on the command line of a command that takes nothing else."""
    overrides: list[str] = parse_with_overrides(parser(name, text), words).overrides
    return overrides


def parse_with_overrides(given: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """Return what a command line says to a parser that takes overrides, too.

    Raises:
        UserError: they are given in the manner of ``dvc exp run``.
    """
    given.add_argument(
        "overrides", nargs="*", metavar="override", help="in Hydra's grammar: key=value, +key=value"
    )
    if any(word == "-S" or word.startswith("--set-param") for word in words):
        raise UserError("found -S, which is for 'dvc exp run'; expected overrides alone, such as"
                        " train.steps=2500")  # fmt: skip
    return given.parse_args(words)
