"""What each restorer costs to use, and the command that makes its scores."""

from pipeline.config.params import Params
from pipeline.report.provenance import Code, rebuild_command
from pipeline.report.results import TaskResults
from pipeline.report.tables.scores import NONE, Cell, Table, text_table
from pipeline.runtime.paths import DEGRADED


def restorer_table(params: Params, results: list[TaskResults]) -> Table:
    """Return what restoring costs with each method: network, parameters, multiplications.

    And the parameters of the networks that only its training has, such as the denoiser.
    """
    rows = []
    for task in results:
        for name, models in task.models.items():
            model = models[0]
            macs = NONE if model.giga_macs is None else f"{model.giga_macs:,.2f}"
            extra = model.facts.get("extra_parameters")
            rows.append((f"{task.name}, {name}", model.restorer,
                         f"{model.facts['parameters']:,}", macs,
                         NONE if extra is None else f"{extra:,}"))  # fmt: skip
    columns = ("Task, method", "Restorer", "Parameters", "GMACs at 128x128",
               "Parameters thrown away after training")  # fmt: skip
    cells = tuple(tuple(Cell(text) for text in row) for row in rows)
    caption = "What restoring takes; what is thrown away after training is not part of it"
    return Table(caption, columns, cells, words=2)


def commands_table(params: Params, results: list[TaskResults], code: Code) -> Table:
    """Return the command that rebuilds the scores of each restorer and seed."""
    rows = []
    for task in results:
        degraded = rebuild_command(code, f"evaluate_degraded@{task.name}")
        rows.append((task.name, DEGRADED, NONE, degraded))
        for name in params.methods:
            for seed in params.seeds:
                command = rebuild_command(code, f"evaluate@{task.name}-{name}-{seed}")
                rows.append((task.name, name, str(seed), command))
    return text_table(
        "Each command makes the scores of one restorer anew, with all that they rest on",
        ("Task", "Restorer", "Seed", "Command"),
        rows,
    )
