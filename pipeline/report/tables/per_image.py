"""Every score of every image in one table: what all statistics of the report are made from."""

from pipeline.config.params import Params
from pipeline.report.results import TaskResults
from pipeline.runtime.csv_files import csv_text

COLUMNS = ("task", "data_set", "protocol", "scene", "id", "method", "seed", "psnr", "ssim", "lpips")


def per_image_csv(params: Params, results: list[TaskResults]) -> str:
    """Return one row a task, scored image, restorer and seed; the degraded input has no seed.

    Scores have all their digits: read back they are the same numbers. LPIPS is empty where it was
    not measured.
    """
    rows: list[tuple[object, ...]] = []
    for task in results:
        for data in task.data_sets:
            for restorer, psnr in data.psnr.items():
                seeds = params.seeds if restorer in params.methods else ("",)
                for index, seed in enumerate(seeds):
                    for place, image in enumerate(data.ids):
                        scores = [psnr[index, place], data.ssim[restorer][index, place]]
                        if data.lpips:
                            scores.append(data.lpips[restorer][index, place])
                        rows.append((
                            task.name, data.name, data.protocol, data.scenes[place], image,
                            restorer, seed, *map(float, scores), *[""] * (3 - len(scores)),
                        ))  # fmt: skip
    return csv_text(COLUMNS, rows)
