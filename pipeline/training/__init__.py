"""Training: the loop, all that is saved, the log."""
