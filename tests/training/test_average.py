"""The moving average against PyTorch's own."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.training.average import MovingAverage


def test_it_is_the_librarys_to_the_bit() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))  # with buffers, one of them int
    library = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average = MovingAverage(network, 0.9)
    for _ in range(3):
        network(torch.randn(2, 3, 8, 8))
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(torch.randn_like(weight))
        library.update_parameters(network)
        average.update()

        expected = library.state_dict()
        assert average.state_dict().keys() == expected.keys()
        for name, value in average.state_dict().items():
            assert torch.equal(value, expected[name]), name
    assert not torch.equal(average.module[0].weight, network[0].weight)
    assert not average.module.training
