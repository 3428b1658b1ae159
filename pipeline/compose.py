"""Compose ``pipeline/conf`` into params.yaml, byte for byte as ``dvc exp run`` does.

Usage: python -m pipeline.compose [override ...]      (Hydra's override grammar)
"""

import sys
from pathlib import Path

from pipeline.config import PARAMS_FILE, NoTruthError, check
from pipeline.errors import UserError, mistakes_told
from pipeline.files import replacing
from pipeline.turns import require_nobody_runs

CONF = Path(__file__).parent / "conf"


def compose(overrides: list[str], output: Path = PARAMS_FILE) -> None:
    """Write the composed and checked configuration; an invalid one leaves the file as it was.

    The bound of the defaults is left out, and said to be, where a task has no truth for it.

    Raises:
        UserError: an override names no known key or group, or a value is not allowed.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    with replacing(output) as partial:
        staged = partial.with_suffix(".yaml")  # the ending decides the format
        try:
            try:
                _dump(staged, overrides)
            except NoTruthError as error:
                if any(override.startswith("bound=") for override in overrides):
                    raise
                _dump(staged, [*overrides, "bound=none"])
                print(f"without the bound: {error}", file=sys.stderr)
            staged.replace(partial)
        except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"overrides {overrides}: {' '.join(str(error).split())}") from None
        finally:
            staged.unlink(missing_ok=True)


def _dump(path: Path, overrides: list[str]) -> None:
    from dvc.utils.hydra import compose_and_dump
    from omegaconf import OmegaConf

    compose_and_dump(path, str(CONF), None, "config", str(CONF), overrides)
    check(OmegaConf.to_container(OmegaConf.load(path)))


if __name__ == "__main__":
    with mistakes_told():
        require_nobody_runs()
        compose(sys.argv[1:])
