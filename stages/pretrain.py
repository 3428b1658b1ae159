"""Train on synthetic pairs the restorer that all methods of a seed start from."""

from pipeline.config.params import Params
from pipeline.training.job import Job
from pipeline.workflow.stage import run


def main(params: Params, task: str, seed: int) -> None:
    """Pretrain one seed of one task."""
    from pipeline.training.loop import train

    train(Job.pretraining(params, task, seed))


if __name__ == "__main__":
    run(main)
