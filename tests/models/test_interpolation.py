"""The U-Net's interpolation on GPUs against PyTorch's own, on the processor."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.models.restorers.unet import double_by_products


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(16, 24), (1, 5), (2, 1)])
def test_products_interpolate_as_pytorch_does(
    size: tuple[int, int], memory_format: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 5, *size, generator=generator).to(memory_format=memory_format)
    features.requires_grad_()
    found = double_by_products(features)
    expected = F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(expected.shape, generator=generator)
    gradients = [
        torch.autograd.grad((made * weights).sum(), features)[0] for made in (found, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_the_memory_order_of_convolutions_is_kept() -> None:
    features = torch.zeros(2, 8, 6, 4).to(memory_format=torch.channels_last)
    assert double_by_products(features).is_contiguous(memory_format=torch.channels_last)
