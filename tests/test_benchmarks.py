"""The benchmarks run and measure what they say."""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import joint_step
from benchmarks.crop_reading import measure
from benchmarks.steps import SIZES, VARIANTS, build_step

ARGUMENTS = argparse.Namespace(size="tiny", repeats=2, steps=1, threads=1, profile=True)


def test_joint_step_measures_every_variant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_here(part: str, arguments: argparse.Namespace) -> dict[str, Any]:
        given = argparse.Namespace(**{**vars(arguments), "part": part})
        values: dict[str, Any] = json.loads(json.dumps(joint_step.PARTS[part](given)))
        return values

    monkeypatch.setattr(joint_step, "_in_own_process", run_here)
    result = joint_step.measure(ARGUMENTS)
    assert result["flops"] > 0
    for repeat in result["repeats"]:
        for variant in VARIANTS:
            assert repeat[variant]["before_mib"] > 0
            assert repeat[variant]["peak_mib"] > 0
            assert repeat[variant]["seconds"] > 0
    for kinds in result["profile"].values():
        assert kinds["convolution forward"] > 0
        assert kinds["convolution backward"] > 0
    joint_step.show(result)
    shown = capsys.readouterr().out
    assert all(variant in shown for variant in VARIANTS)


def test_variants_make_the_same_step() -> None:
    losses = {}
    for variant in VARIANTS:
        step = build_step(variant, SIZES["tiny"])
        losses[variant] = statistics.mean(step() for _ in range(20))
    torch.use_deterministic_algorithms(False)
    # the random draws differ, so only the means agree
    assert losses["fp32"] == pytest.approx(losses["plain"], rel=0.03)
    for variant in VARIANTS[2:]:
        assert losses[variant] == pytest.approx(losses["fp32"], rel=0.03)


def test_crop_reading_reads_the_same_crops_both_ways(tmp_path: Path) -> None:
    rates = measure(tmp_path, images=2, crops=8, repeats=2)
    assert set(rates) == {"store", "png"}
    assert all(len(values) == 2 and min(values) > 0 for values in rates.values())
