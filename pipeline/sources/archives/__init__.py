"""Archives of published data sets, read safely and without unpacking where that is possible."""
