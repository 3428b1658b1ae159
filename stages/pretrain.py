"""Train on synthetic pairs the restorer that all methods of a seed start from."""

from pipeline.config import Params
from pipeline.config.learning import Vanilla
from pipeline.runtime.paths import Run, pretrained, task_images
from pipeline.workflow.stage import run


def main(params: Params, task: str, seed: int) -> None:
    """Pretrain one seed of one task."""
    from pipeline.training.loop import Job, train

    train(
        Job(
            title=f"pretrain {task}, seed {seed}",
            task_name=task,
            method_name="pretrained",
            synthetic=params.tasks[task].synthetic,
            image_range=params.tasks[task].image_range,
            learning_rate_factor=params.tasks[task].learning_rate_factor,
            method=Vanilla(kind="vanilla", start="scratch"),
            restorer=params.tasks[task].restorer or params.restorer,
            train=params.train,
            seed=seed,
            images=task_images(task),
            start_from=None,
            last_step=params.train.pretrain_steps,
            keeps="state",
            folder=pretrained(task, seed),
            timings=Run(task, "pretrained", seed).timings,
        )
    )


if __name__ == "__main__":
    run(main)
