"""What holds on a GPU alone, and its twin on the processor where there is one."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks.steps import SIZES, Variant, project_step, random_batch
from pipeline.device import prepare_torch
from pipeline.dry_run.counting import counted_peak
from pipeline.models.restorers import unet
from pipeline.training.loop import train
from tests.helpers.training_job import NOISE_SPACE, TRAIN, job, results, write_images

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]
MIDDLE = replace(SIZES["paper"], batch=4, patch=64)


def losses(variant: Variant) -> tuple[list[float], int]:
    """Return the losses of three updates, and the most memory that they took."""
    prepare_torch(1)
    torch.manual_seed(0)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    step = project_step(MIDDLE, random_batch(MIDDLE), variant, torch.device("cuda"))
    torch.manual_seed(1)
    return [step() for _ in range(3)], torch.cuda.max_memory_allocated()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_checkpointing_takes_less_memory_for_the_same_losses(precision: str) -> None:
    plain, memory = losses(Variant(precision))  # type: ignore[arg-type]
    lean, less = losses(Variant(precision, checkpointed=True))  # type: ignore[arg-type]
    assert lean == plain
    assert less < 0.9 * memory


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.slow  # minutes of compiling
def test_compiled_it_learns_nearly_the_same(checkpointed: bool) -> None:
    plain, _ = losses(Variant("bf16"))
    compiled, _ = losses(Variant("bf16", compiled=True, checkpointed=checkpointed))
    assert compiled == pytest.approx(plain, rel=2e-2)


def test_products_give_pytorchs_repeatable_interpolation() -> None:
    """Of the U-Net's upper level; which is faster is a row of benchmarks.gpu."""
    prepare_torch(1)
    features = torch.randn(2, 128, 64, 64, device="cuda")
    features = features.to(memory_format=torch.channels_last).requires_grad_()
    made = [
        unet.double_by_products(features),
        F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=True),
    ]
    torch.testing.assert_close(*made, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(one.square().sum(), features)[0] for one in made]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_draws_on_the_device_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    write_images(tmp_path / "images")
    for name, place in (("one", "device"), ("again", "device"), ("other", "cpu")):
        settings = replace(TRAIN, draws_on=place)
        train(job(tmp_path / "images", tmp_path / name, NOISE_SPACE, train=settings))
    assert results(tmp_path / "one") == results(tmp_path / "again")
    assert results(tmp_path / "one") != results(tmp_path / "other")


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_counted_peak_is_the_measured_one(
    precision: str, checkpointed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.models.denoiser.normalized_convolution.IN_PARTS", ())
    settings = replace(TRAIN, patch=MIDDLE.patch, gradient_checkpointing=checkpointed)
    training = job(
        Path("none"), Path("none"), MIDDLE.method, restorer=MIDDLE.restorer, train=settings
    )
    counted = counted_peak(training, MIDDLE.batch, precision)  # type: ignore[arg-type]
    _, measured = losses(Variant(precision, checkpointed=checkpointed))  # type: ignore[arg-type]
    assert counted == pytest.approx(measured, rel=0.15)
