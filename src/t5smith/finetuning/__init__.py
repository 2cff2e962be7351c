"""Fine-tuning: rows of files to examples of tasks, batches, scores of what the model writes, the verb."""
