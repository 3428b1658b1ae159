"""Files, locks, paths, progress, errors: nothing here can change a result."""

CHANGES_NO_RESULT = ("commands", "config", "runtime", "workflow")
"""Folders of ``pipeline`` that carry values but compute none: an edit there trains nothing anew.

The fingerprint of a training leaves them out, and so do the dependencies in dvc.yaml.
"""
