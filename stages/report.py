"""Render tables, figures and provenance of all evaluations into reports/."""

from pipeline.config.params import Params
from pipeline.report.page import write_report
from pipeline.runtime.paths import REPORTS
from pipeline.workflow.stage import run


def main(params: Params) -> None:
    """Write the report."""
    write_report(params, REPORTS)


if __name__ == "__main__":
    run(main)
