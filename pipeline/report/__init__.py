"""The report: from scores, logs and model files to summary, tables, figures and pages.

collect.py reads, everything else is made from what it returns; page.py puts it together.
findings.py writes the first lines, summary.py the rows of summary.json, provenance.py where numbers
come from, cost.py durations and memory. tables/, figures/ and examples/ hold what they say.

Same inputs and same commit give the same bytes, but for the cost files and
report_with_cost.html, the same page with durations and memory.
"""
