"""Measurements of speed and memory; nothing of the pipeline depends on them."""
