"""The report: from scores, logs and model files to summary, tables, figures and pages.

collect.py reads, everything else is made from what it returns:

* summary.py      rows of summary.json, one for each task, method, seed and data set
* tables.py       scores as people read them, and what all tables share
* differences.py  methods against each other, every p-value corrected for all of the report
* notes.py        what a reader of them must not overlook
* headline.py     all results in one table, the ablation; published.csv holds the paper's numbers
* failures.py     where a method does harm
* per_image.py    every score of every image in one table, for other programs
* writing.py      a table as CSV, LaTeX and Markdown
* examples.py     which restored images are shown, and their pixels
* curves.py       training curves
* conditions.py   the denoisers' errors by the quality of their conditions
* grids.py        restored images side by side
* viewer.py       the versions of an image that a slider compares
* drawing.py      what these pictures share
* provenance.py   commit, versions, protocols
* scaling.py      scores against the size of the restorer
* restorers.py    parameters, multiplications, what is thrown away; the command of each number
* timings.py      seconds a step and waiting for data, drawn for the page with cost
* cost.py         durations and memory, in files of their own because they differ from run to run
* page.py         all of it as Markdown and HTML, from templates/
* compare.py      two revisions or experiments side by side, a command of its own

Same inputs and same commit give the same bytes, but for the cost files and
report_with_cost.html, the same page with durations and memory.
"""

from pipeline.report.page import write_report

__all__ = ["write_report"]
