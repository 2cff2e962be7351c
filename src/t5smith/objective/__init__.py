"""The denoising objective: lengths, masks, and batches of inputs and targets."""
