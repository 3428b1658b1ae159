"""Train one restorer with one method on one task, or take over released weights."""

from pipeline.config import Params
from pipeline.config.learning import Released
from pipeline.runtime.paths import STATE_FILE, Run, pretrained, task_images
from pipeline.workflow.stage import run


def main(params: Params, task: str, method: str, seed: int) -> None:
    """Train one method and seed."""
    from pipeline.training.loop import Job, train
    from pipeline.training.released import take_over

    settings = params.methods[method]
    run = Run(task, method, seed)
    restorer = params.tasks[task].restorer or params.restorer
    if isinstance(settings, Released):
        take_over(settings.weights[task], run, restorer)
        return
    goes_on = settings.start == "pretrained"
    train(
        Job(
            title=f"train {task}, {method}, seed {seed}",
            task_name=task,
            method_name=method,
            synthetic=params.tasks[task].synthetic,
            image_range=params.tasks[task].image_range,
            learning_rate_factor=params.tasks[task].learning_rate_factor,
            method=settings,
            restorer=restorer,
            train=params.train,
            seed=seed,
            images=task_images(task),
            start_from=pretrained(task, seed) / STATE_FILE if goes_on else None,
            last_step=params.train.steps,
            keeps="model",
            folder=run.training,
            timings=run.timings,
        )
    )


if __name__ == "__main__":
    run(main)
