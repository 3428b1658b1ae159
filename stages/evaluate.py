"""Restore and score the test images of one task with one trained restorer."""

from pipeline.config import Params
from pipeline.evaluation import evaluate
from pipeline.paths import MODEL_FILE, Run, task_images
from pipeline.restoration import load_model
from pipeline.stage import run


def main(params: Params, task: str, method: str, seed: int) -> None:
    """Evaluate one method and seed."""
    which = Run(task, method, seed)
    settings = params.evaluate
    restore = load_model(which.training / MODEL_FILE, settings)
    test = task_images(task) / "test.h5"
    evaluate(restore, test, params.tasks[task].protocol, settings.kept_images, which)


if __name__ == "__main__":
    run(main)
