"""What stages, DVC and Snakemake share: nothing here can change a result."""
