"""Write the results into README.md, and the picture beside them into docs/strip.webp.

The table comes from reports/summary.json alone. The picture needs the evaluations of the demo.
"""

import json
from pathlib import Path

from pipeline.commands import parser
from pipeline.config.read import read_params
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import replacing, write_text
from pipeline.runtime.paths import REPORTS

README = Path("README.md")
SUMMARY = REPORTS / "summary.json"


def main(words: list[str]) -> int:
    """Write both, or the table alone.

    Raises:
        UserError: the summary or an evaluation is missing, or README.md lacks its marks.
    """
    given = parser("readme", __doc__)
    given.add_argument("--table", action="store_true", help="leave the picture as it is")
    table_alone: bool = given.parse_args(words).table
    if not SUMMARY.is_file():
        raise UserError(f"{SUMMARY}: not found; 'dvc repro' writes it")
    from pipeline.report import readme
    from pipeline.report.results import bounds

    params = read_params()
    if not table_alone:
        content = readme.strip(params)
        with replacing(readme.STRIP) as partial:
            partial.write_bytes(content)
    section = readme.results(json.loads(SUMMARY.read_text()), bounds(params))
    write_text(README, readme.with_results(README.read_text(), section))
    return 0
