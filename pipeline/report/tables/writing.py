"""Tables as files for other programs: CSV, LaTeX (booktabs) and Markdown."""

import re
from collections.abc import Iterable

from pipeline.report.tables.scores import MEAN_AND_STD, NONE, Table
from pipeline.runtime.csv_files import csv_text

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$",
}  # fmt: skip

NARROWED = r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"
"""Opens what is made as narrow as the text, if it is wider."""


def to_csv(table: Table) -> str:
    """Return the cells comma-separated, under the names of the columns.

    Columns whose cells hold several numbers, a mean and its deviation or the bounds of an interval,
    become one column a number. A number that is not there is an empty field.
    """
    columns = [_csv_columns(table, index) for index in range(len(table.columns))]
    fields = [field for column in columns for field in column.items()]
    rows = zip(*(values for _, values in fields), strict=True)
    return csv_text([name for name, _ in fields], rows)


def _csv_columns(table: Table, index: int) -> dict[str, list[str]]:
    """Return the fields of one column by name, or of those that its numbers take."""
    name, cells = table.columns[index], [row[index] for row in table.rows]
    numeric = table.numeric and index >= table.words
    texts = ["" if numeric and cell.text == NONE else cell.text for cell in cells]
    parts = list(dict.fromkeys(part for cell in cells for part in cell.parts))
    if not parts:
        return {name: texts}
    plain = name.split(f", {MEAN_AND_STD}")[0]
    return {
        f"{plain}, {part}": [
            # a text without parts is one number, or says why there is none
            cell.parts.get(part, "") if cell.parts else "" if place else text
            for cell, text in zip(cells, texts, strict=True)
        ]
        for place, part in enumerate(parts)
    }


def to_latex(table: Table, label: str) -> str:
    r"""Return a table environment for ``\usepackage{booktabs,graphicx}``.

    The best of a column is bold; numbers that were not measured here are in italics.
    """
    places = ["l" if not table.numeric or index < table.words else "r"
              for index in range(len(table.columns))]  # fmt: skip
    head = " & ".join(escape_latex(name) for name in table.columns)
    body = []
    for row in table.rows:
        cells = []
        for cell in row:
            text = escape_latex(cell.text)
            text = rf"\textbf{{{text}}}" if cell.best else text
            cells.append(rf"\textit{{{text}}}" if cell.theirs else text)
        line = " & ".join(cells) + r" \\"
        # after the end of a row both would be read as its options
        body.append("{}" + line if line.startswith(("[", "*")) else line)
    lines = [
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(table.caption)}}}",
        rf"\label{{tab:{label}}}",
        NARROWED,
        rf"\begin{{tabular}}{{{''.join(places)}}}",
        r"\toprule",
        rf"{head} \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Return text that LaTeX shows as it stands."""
    return "".join(LATEX.get(letter, letter) for letter in " ".join(text.split()))


def to_markdown(table: Table) -> str:
    """Return the table with its caption; the best of a column is bold, others' numbers italic."""
    lines = [
        f"*{escape_markdown(table.caption)}*",
        "",
        _row(escape_markdown(name) for name in table.columns),
        _row("---:" if table.numeric and index >= table.words else "---"
             for index in range(len(table.columns))),
    ]  # fmt: skip
    for row in table.rows:
        texts = []
        for cell in row:
            text = escape_markdown(cell.text)
            text = f"**{text}**" if cell.best else text
            texts.append(f"*{text}*" if cell.theirs and text else text)
        lines.append(_row(texts))
    return "\n".join(lines) + "\n"


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it stands, in a table as elsewhere."""
    escaped = re.sub(r"([\\`*\[\]<>|&~$])", r"\\\1", " ".join(text.split()))
    # between letters an underscore means nothing, at the rim of a word it means emphasis
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", escaped)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
