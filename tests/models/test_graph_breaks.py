"""What torch.compile is given is one graph: nothing of a network is left to Python."""

import pytest
import torch
from torch import nn

from pipeline.config.build import build
from pipeline.config.denoiser import DenoiserSettings
from pipeline.config.restorers import RestorerSettings
from pipeline.models.build import build_restorer
from pipeline.models.checkpointing import checkpoint_gradients
from pipeline.models.denoiser.network import Denoiser
from tests.helpers.small_restorers import SMALL

WITH_BREAKS = {"nafnet"}
"""Spandrel's layer normalization has a backward pass of its own that dynamo does not read."""
CHECKPOINTED = [False, pytest.param(True, marks=pytest.mark.slow)]


def breaks(network: nn.Module, *given: torch.Tensor) -> int:
    """Return how often graphs end."""
    torch._dynamo.reset()
    explained = torch._dynamo.explain(network.train())(*given)
    torch._dynamo.reset()
    assert explained.op_count, "nothing was compiled"  # a checkpoint with all within it is one
    return int(explained.graph_break_count)


@pytest.mark.parametrize("checkpointed", CHECKPOINTED)
@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_restorer_is_one_graph(name: str, checkpointed: bool) -> None:
    settings = build(RestorerSettings, {"kind": name, **SMALL[name]}, "restorer")
    restorer = build_restorer(settings)
    if checkpointed:
        checkpoint_gradients(nn.ModuleList([restorer]), compiled=True)
    found = breaks(restorer, torch.rand(1, 3, 2 * settings.factor, 2 * settings.factor))
    # with checkpoints dynamo counts none, even there
    assert (found > 0) == (name in WITH_BREAKS and not checkpointed), found


@pytest.mark.slow
def test_the_denoiser_with_checkpoints_is_one_graph() -> None:
    """Without them: see test_models.py, which compiles it."""
    denoiser = Denoiser(DenoiserSettings((8, 16), 1, 1, 8, 4, 0.2), conditions=2)
    checkpoint_gradients(nn.ModuleList([denoiser]), compiled=True)
    given = torch.rand(1, 3, 16, 16), torch.rand(1, 6, 16, 16), torch.tensor([0.5])
    assert breaks(denoiser, *given) == 0
