"""Score the degraded test images of one task as they are: the row that any method must beat."""

from pipeline.config.params import Params
from pipeline.evaluation.evaluate import evaluate
from pipeline.runtime.paths import DEGRADED, Run, task_images
from pipeline.workflow.stage import run


def main(params: Params, task: str) -> None:
    """Evaluate the degraded input of one task."""
    test, protocol = task_images(task) / "test.h5", params.tasks[task].protocol
    evaluate(lambda images: images, test, protocol, params.evaluate, Run(task, DEGRADED), {})


if __name__ == "__main__":
    run(main)
