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

LONG_TO_READ = {"restormer", "uformer"}  # a thousand operations
CHECKPOINTED = [False, pytest.param(True, marks=pytest.mark.slow)]


def is_one_graph(network: nn.Module, *given: torch.Tensor) -> bool:
    """Return whether all of a network is in one graph.

    Dynamo may also give up on nearly all of it without a break, so operations are counted, those
    inside checkpoints too.
    """
    torch._dynamo.reset()
    explained = torch._dynamo.explain(network.train())(*given)
    torch._dynamo.reset()
    operations = sum(
        node.op.startswith("call")
        for graph in explained.graphs
        for module in graph.modules()
        if isinstance(module, torch.fx.GraphModule)
        for node in module.graph.nodes
    )
    return explained.graph_break_count == 0 and operations > 5


@pytest.mark.parametrize("checkpointed", CHECKPOINTED)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in LONG_TO_READ))
        for name in sorted(SMALL)
    ],
)
def test_a_restorer_is_one_graph(name: str, checkpointed: bool) -> None:
    settings = build(RestorerSettings, {"kind": name, **SMALL[name]}, "restorer")
    restorer = build_restorer(settings)
    if checkpointed:
        checkpoint_gradients(nn.ModuleList([restorer]), compiled=True)
    given = torch.rand(1, 3, 2 * settings.factor, 2 * settings.factor)
    assert is_one_graph(restorer, given)


@pytest.mark.slow
def test_the_denoiser_with_checkpoints_is_one_graph() -> None:
    """Without them: see test_models.py, which compiles it."""
    denoiser = Denoiser(DenoiserSettings((8, 16), 1, 1, 8, 4, 0.2), conditions=2)
    checkpoint_gradients(nn.ModuleList([denoiser]), compiled=True)
    given = torch.rand(1, 3, 16, 16), torch.rand(1, 6, 16, 16), torch.tensor([0.5])
    assert is_one_graph(denoiser, *given)
