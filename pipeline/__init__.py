"""Noise-space domain adaptation for image restoration, as a reproducible pipeline.

Imports go one way, in the order in which the data flows:
config, sources, store, degradations, batches, models, diffusion, adaptation,
training, restoration, metrics, evaluation, statistics, report.
"""
