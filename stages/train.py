"""Train one restorer with one method on one task, or take over released weights."""

from pipeline.config.methods import ReleasedSettings
from pipeline.config.params import Params
from pipeline.runtime.paths import Run
from pipeline.training.job import Job
from pipeline.workflow.stage import run


def main(params: Params, task: str, method: str, seed: int) -> None:
    """Train one method and seed."""
    from pipeline.training.loop import train
    from pipeline.training.released import take_over

    settings = params.methods[method]
    if isinstance(settings, ReleasedSettings):
        take_over(settings.weights[task], Run(task, method, seed), params.restorer_of(task))
    else:
        train(Job.of_method(params, task, method, seed))


if __name__ == "__main__":
    run(main)
