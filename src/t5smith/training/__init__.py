"""Training: optimizer, step, checkpoints, metrics, loop."""
