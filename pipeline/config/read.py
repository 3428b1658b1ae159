"""Read and check params.yaml."""

import re
from pathlib import Path
from typing import Any

from pipeline.config.agreement import check_agreement
from pipeline.config.build import ConfigError, build
from pipeline.config.params import PARAMS_FILE, Params
from pipeline.runtime.errors import UserError

AT_LEAST_ONE = {
    "seeds": "seeds=[0]",
    "sources": "sources=[skimage]",
    "tasks": "tasks=[denoise]",
    "methods": "methods=[vanilla]",
}
"""Lists that may not be empty, and an override for each."""


def check(values: Any) -> Params:
    """Return plain values as ``Params``.

    Raises:
        ConfigError: unknown or missing key, wrong type, value out of range, or values that do not
            go together.
    """
    for name, example in AT_LEAST_ONE.items():
        # Hydra leaves out what is empty
        if isinstance(values, dict) and values.get(name) in (None, [], {}):
            raise ConfigError(f"{name}: found nothing, expected at least one, such as {example}")
    params: Params = build(Params, values, "")
    for name, chosen in (
        ("seeds", params.seeds),
        ("sources", params.sources),
        ("tasks", params.tasks),
        ("methods", params.methods),
    ):
        for label in chosen:
            fit = isinstance(label, str) and re.fullmatch(r"[A-Za-z0-9_.]+", label)
            if name != "seeds" and not fit:
                raise ConfigError(
                    f"{name}.{label}: found {label!r} as a name, expected letters, digits, '_' and"
                    " '.' (names become parts of paths)"
                )
    check_agreement(params)
    return params


def read_values(path: Path = PARAMS_FILE) -> Any:
    """Return the plain values of a YAML file.

    Raises:
        UserError: the file is missing or is not YAML.
    """
    from omegaconf import OmegaConf  # slow to import; not every importer of this module reads
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if not path.is_file():
        raise UserError(f"{path}: not found; write it with 'python -m pipeline compose'")
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except (
        YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError, RecursionError,
    ) as error:  # fmt: skip
        raise UserError(
            f"{path}: not valid YAML ({' '.join(str(error).split())}); mend it, or write it anew"
            " with 'python -m pipeline compose'"
        ) from None


def read_params(path: Path = PARAMS_FILE) -> Params:
    """Return the checked configuration of a params.yaml.

    Raises:
        UserError: the file is missing or is not YAML.
        ConfigError: see ``check``.
    """
    return check(read_values(path))
