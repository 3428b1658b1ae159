"""Counted memory against memory that a processor takes, and the advice that follows."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.steps import SIZES, Variant, project_step, random_batch
from pipeline.config.compose import compose
from pipeline.config.denoiser import DenoiserSettings
from pipeline.config.read import read_params
from pipeline.device import Precision, has_bfloat16, prepare_torch
from pipeline.dry_run.counting import counted_peak
from pipeline.dry_run.measuring import Counted
from pipeline.dry_run.wording import card_advice
from pipeline.methods.method import build_method
from pipeline.models.build import build_restorer, parameter_count
from tests.helpers.training_job import TRAIN, job

SIZE = replace(
    SIZES["paper"],
    denoiser=DenoiserSettings((32, 64), 1, 1, 32, 32, 0.2),
    restorer=replace(SIZES["paper"].restorer, levels=2, channels=32),
    batch=4,
    patch=48,
)


def allocated_peak(precision: Precision, checkpointed: bool) -> int:
    """Return the most bytes that PyTorch's allocator held at once during two real updates."""
    prepare_torch(1)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step = project_step(SIZE, random_batch(SIZE), Variant(precision, checkpointed=checkpointed))
        for _ in range(2):
            step()
    events = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    assert len(changes) > 1000
    return max(itertools.accumulate(size for _, size in sorted(changes, key=lambda c: c[0])))


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_the_processors_peak(precision: Precision, checkpointed: bool) -> None:
    if precision == "bf16" and not has_bfloat16():
        pytest.skip("this processor has no bfloat16: PyTorch convolves in copies")
    settings = replace(TRAIN, patch=SIZE.patch, gradient_checkpointing=checkpointed)
    here = Path("none")
    training = job(here, here, SIZE.method, restorer=SIZE.restorer, train=settings)
    counted = counted_peak(training, SIZE.batch, precision)
    assert counted == pytest.approx(allocated_peak(precision, checkpointed), rel=0.15)


def test_what_a_weight_takes_is_counted_by_hand() -> None:
    """Without images to speak of: weights, gradients and two moments; the average is small."""
    here = Path("none")
    training = job(here, here, SIZE.method, restorer=SIZE.restorer, train=replace(TRAIN, patch=16))
    with torch.device("meta"):
        values = parameter_count(build_method(build_restorer(SIZE.restorer), SIZE.method))
    assert 4 * 4 * values < counted_peak(training, 1, "fp32") < 4 * 4 * values * 1.3


def test_memory_grows_with_the_images_and_shrinks_with_checkpointing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # as on a GPU: a processor keeps more of batches so small that its cache holds them
    monkeypatch.setattr("pipeline.models.denoiser.normalized_convolution.IN_PARTS", ())
    here = Path("none")
    plain = job(here, here, SIZE.method, restorer=SIZE.restorer, train=replace(TRAIN, patch=32))
    lean = replace(plain, train=replace(plain.train, gradient_checkpointing=True))
    one, two, four = (counted_peak(plain, images, "bf16") for images in (1, 2, 4))
    assert two - one > 0
    # what blocks hold at once does not grow with the batch
    assert four - two == pytest.approx(2 * (two - one), rel=0.1)
    assert counted_peak(lean, 4, "bf16") < 0.9 * four
    assert counted_peak(plain, 1, "fp32") > one


@pytest.mark.parametrize(
    ("plain", "lean", "said"),
    [
        (0.5, 0.2, ["Fits in 24 GiB."]),
        # 24 images of 1 GiB: 26 GiB; half of them fit
        (1.0, 0.2, ["Does not fit in 24 GiB; try train.gradient_checkpointing=true or"
                    " train.accumulate=2.", "Fits in 40 GiB."]),
        (2.0, 1.5, ["Does not fit in 24 GiB; try train.accumulate=3.",
                    "Does not fit in 40 GiB; try train.accumulate=2.", "Fits in 80 GiB."]),
        (99.0, 98.0, [f"Does not fit in {card} GiB; nor does any share of it."
                      for card in (24, 40, 80)]),
    ],
)  # fmt: skip
def test_the_advice_fits(tmp_path: Path, plain: float, lean: float, said: list[str]) -> None:
    compose(["preset=paper", "train.batch=192"], tmp_path / "p.yaml")
    params = read_params(tmp_path / "p.yaml")
    lines = {
        checkpointed: Counted(fixed=2 * 2**30, an_image=an_image * 2**30)
        for checkpointed, an_image in ((False, plain), (True, lean))
    }
    first, *rest = card_advice(params, lines)
    assert first.startswith(f"On a GPU, counted: {2 + 24 * plain:.1f} GiB for a share of 24 images")
    assert rest == said
