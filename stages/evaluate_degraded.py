"""Score the degraded test images of one task as they are: the row that any method must beat."""

from pipeline.config.params import Params
from pipeline.evaluation.evaluate import evaluate
from pipeline.runtime.paths import DEGRADED, Run, task_images
from pipeline.workflow.stage import run


def main(params: Params, task: str) -> None:
    """Evaluate the degraded input of one task."""
    images, protocol = task_images(task), params.tasks[task].protocol
    test, clean, which = images / "test.h5", images / "synthetic.h5", Run(task, DEGRADED)
    evaluate(lambda given: given, test, clean, protocol, params.evaluate, which, {})


if __name__ == "__main__":
    run(main)
