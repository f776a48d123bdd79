"""A model that runs: loaded, read, given rows for new words (may import: ground, tokenizer, checkpoint)."""
