"""Compose ``pipeline/conf`` into params.yaml, byte for byte as ``dvc exp run`` does."""

from pathlib import Path

from pipeline.config.params import PARAMS_FILE
from pipeline.config.read import check
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import replacing

CONF = Path(__file__).parents[1] / "conf"


def compose(overrides: list[str], output: Path = PARAMS_FILE) -> None:
    """Write the composed and checked configuration; an invalid one leaves the file as it was.

    Raises:
        UserError: an override names no known key or group, or a value is not allowed.
    """
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    with replacing(output) as partial:
        staged = partial.with_suffix(".yaml")  # the ending decides the format
        try:
            compose_and_dump(staged, str(CONF), None, "config", str(CONF), overrides)
            check(OmegaConf.to_container(OmegaConf.load(staged)))
            staged.replace(partial)
        except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"overrides {overrides}: {' '.join(str(error).split())}") from None
        finally:
            staged.unlink(missing_ok=True)
