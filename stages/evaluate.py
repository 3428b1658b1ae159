"""Restore and score the test images of one task with one trained restorer."""

from pipeline.config.params import Params
from pipeline.evaluation.evaluate import evaluate
from pipeline.runtime.paths import MODEL_FILE, Run, task_images
from pipeline.workflow.stage import run


def main(params: Params, task: str, method: str, seed: int) -> None:
    """Evaluate one method and seed."""
    # the processes that score import this file, but need no torch
    from pipeline.inference.model import load_model

    which = Run(task, method, seed)
    model = load_model(which.training / MODEL_FILE, params.evaluate)
    images, protocol = task_images(task), params.tasks[task].protocol
    test, clean = images / "test.h5", images / "synthetic.h5"
    evaluate(model.restore_equal, test, clean, protocol, params.evaluate, which, model.facts())


if __name__ == "__main__":
    run(main)
