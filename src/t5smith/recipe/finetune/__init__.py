"""What a user can say about fine-tuning: the table `[finetune]`, and the forms of tasks."""
