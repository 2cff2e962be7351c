"""A vocabulary as a `spiece.model` of SentencePiece, for readers that know no `tokenizer.json`."""
