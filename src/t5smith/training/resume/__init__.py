"""Resuming: what the parameters depend on, checkpoints, earlier training and archived training."""
