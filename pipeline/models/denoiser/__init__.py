"""The conditional diffusion network: needed while training, then thrown away."""
