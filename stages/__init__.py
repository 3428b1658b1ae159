"""What DVC calls: one thin script for each stage."""

import sys

from pipeline.runtime.errors import print_in_one_line

sys.excepthook = print_in_one_line  # also of what happens while a script's modules are imported
