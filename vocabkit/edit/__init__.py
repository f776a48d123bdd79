"""A new folder, written: trimmed or extended, every file of it, and its card
(may import: ground, tokenizer, corpus, vocab, checkpoint, verify, rows).
"""
