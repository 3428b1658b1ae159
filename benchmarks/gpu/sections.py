"""The sections of the benchmark, in their order."""

from benchmarks.gpu import demo, golden, hours, processes, restoring, updates, waiting
from benchmarks.gpu.setup import Section

SECTIONS = [
    Section(
        "The authors' numbers",
        "Loss, gradients, restorer and denoiser against golden values of the release's code.",
        20,
        golden.measure,
    ),
    Section(
        updates.TITLE,
        "One update of the paper's method: 8.56 M and 62.6 M parameters, crops of 128 pixels. A"
        " batch counts images of each domain. FLOPs are counted: backward twice forward.",
        200,
        updates.measure,
    ),
    Section(
        "Waiting for data",
        "A whole training in its own loop, crops from a packed store, noise drawn anew.",
        80,
        waiting.measure_waiting,
    ),
    Section(
        "The same bytes",
        "A training that was stopped by a signal and went on, against an unbroken one.",
        80,
        waiting.measure_repeating,
    ),
    Section(
        "Two processes",
        "The gradient of a joint step, averaged over two halves of a batch.",
        40,
        processes.measure,
    ),
    Section(
        "The demo",
        "preset=demo, task denoise, beside the processor's numbers in reports/metrics.",
        90,
        demo.measure,
    ),
    Section("Restoring", "The paper's restorer; from and to main memory.", 25, restoring.measure),
    Section(
        "Hours of a preset",
        "updates x images an update / images a second, from the row above of that precision whose"
        " batch is nearest to a share; times tasks and seeds.",
        5,
        hours.measure,
    ),
]
