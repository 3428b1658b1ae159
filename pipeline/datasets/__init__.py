"""From photographs to batches of both domains: packing, degrading, cropping."""
