"""GPUs divided among processes, on a machine that is told it has three."""

import os
import subprocess
import sys
from pathlib import Path

from pipeline.workflow.gpus import gpus_of

ROOT = Path(__file__).parents[2]


def test_an_evaluation_uses_one_where_a_training_has_several() -> None:
    assert [gpus_of("train@denoise-x-0", of, 0) for of in (0, 1, 8)] == [0, 1, 8]
    assert [gpus_of("evaluate@denoise-x-0", of, 0) for of in (0, 1, 8)] == [0, 1, 1]


def test_a_pretraining_without_updates_uses_none() -> None:
    assert [gpus_of("pretrain@denoise-0", 8, steps) for steps in (0, 1)] == [0, 8]


def test_every_job_has_gpus_of_its_own(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from pipeline.workflow.gpus import take_gpus;"
        "take_gpus(int(sys.argv[1]), Path('gpus'), float(sys.argv[2]));"
        "print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); os.execvp('cat', ['cat'])"
    )

    def take(count: int, patience_s: int = 0) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, str(count), str(patience_s)], text=True, cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "4,5,7"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def seen(process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    first = take(1)
    assert seen(first) == "4"
    second = take(2)
    assert seen(second) == "5,7"
    _, told = take(1).communicate()
    assert "1 GPUs wanted, 0 of 3 free; start snakemake with --resources gpu=3 or less" in told
    second.communicate()
    third = take(1)
    assert seen(third) == "5"
    waiting = take(3, patience_s=60)
    assert waiting.stderr is not None
    assert waiting.stderr.readline().startswith("waiting for 3 of 3 GPUs: 1 free now")
    for process in (first, third):
        process.communicate()
    assert seen(waiting) == "4,5,7"
    waiting.communicate()
    everything = take(8)
    assert seen(everything) == "4,5,7", "Snakemake lowers what is asked to what it may give"
    everything.communicate()
