"""Make the domains of one task: data/prepared/<source>, ... -> data/tasks/<task>."""

from pipeline.config.params import Params
from pipeline.config.sources import SPLITS
from pipeline.datasets.synthesize import synthesize
from pipeline.runtime.paths import prepared, task_images
from pipeline.workflow.stage import run


def main(params: Params, task: str) -> None:
    """Synthesize one task."""
    settings = params.tasks[task]
    sources = {split: prepared(getattr(settings.sources, split)) for split in SPLITS}
    unpaired = prepared(settings.sources.unpaired)
    unseen = [prepared(name) for name in settings.sources.unseen]
    synthesize(settings, task, sources, unpaired, unseen, task_images(task))


if __name__ == "__main__":
    run(main)
