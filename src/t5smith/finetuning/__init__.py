"""Fine-tuning: rows of files to examples of tasks, their batches, scores of what the model writes, the verb."""
