"""One module for each kind of restorer, named as in ``restorer.kind``."""
