"""Train one restorer with one method on one task."""

from pipeline.config import Params
from pipeline.paths import STATE_FILE, Run, pretrained, task_images
from pipeline.stage import run


def main(params: Params, task: str, method: str, seed: int) -> None:
    """Train one method and seed."""
    from pipeline.training.loop import Job, train

    settings = params.methods[method]
    goes_on = settings.start == "pretrained"
    train(
        Job(
            title=f"train {task}, {method}, seed {seed}",
            task_name=task,
            method_name=method,
            synthetic=params.tasks[task].synthetic,
            method=settings,
            restorer=params.restorer,
            train=params.train,
            seed=seed,
            images=task_images(task),
            start_from=pretrained(task, seed) / STATE_FILE if goes_on else None,
            last_step=params.train.steps,
            keeps="model",
            folder=Run(task, method, seed).training,
        )
    )


if __name__ == "__main__":
    run(main)
