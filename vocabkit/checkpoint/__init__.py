"""A model folder as it lies on disk: shards, rows, vocabulary tensors, vocab_edit.json, the hub
(may import: ground, tokenizer).
"""
