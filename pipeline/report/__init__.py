"""The report: from scores, logs and model files to summary, tables, figures and pages.

collect.py reads, everything else is made from what it returns:

* summary.py      rows of summary.json, one for each task, method, seed and data set
* tables.py       scores and paired differences as people read them
* examples.py     which restored images are shown, and their pixels
* curves.py       training curves
* conditions.py   the denoisers' errors by the quality of their conditions
* grids.py        restored images side by side
* drawing.py      what these pictures share
* provenance.py   commit, versions, protocols
* cost.py         durations and memory, in files of their own because they differ from run to run
* page.py         all of it as Markdown and HTML, from templates/

Same inputs and same commit give the same bytes, but for the cost files.
"""

from pipeline.report.page import write_report

__all__ = ["write_report"]
