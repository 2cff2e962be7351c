"""The folder that a user publishes: weights, tokenizer, model card."""
