"""Write docs/settings.md: every setting with its type, range, unit and value in each preset."""

from pathlib import Path

from pipeline.commands import parser
from pipeline.runtime.files import write_text

PAGE = Path("docs/settings.md")


def main(words: list[str]) -> int:
    """Write the page."""
    given = parser("settings", __doc__)
    given.add_argument("--out", type=Path, default=PAGE, metavar="FILE", help="(%(default)s)")
    out: Path = given.parse_args(words).out
    from pipeline.config.describe import settings_page

    write_text(out, settings_page())
    return 0
