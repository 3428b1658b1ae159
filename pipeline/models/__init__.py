"""The networks: restorers, which are kept, and the denoiser, which is dropped after training."""
