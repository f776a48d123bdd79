"""GGUF files: read, trimmed, verified, written from a folder
(may import: ground, text, tokenizer, corpus, vocab, checkpoint, models, verify).
"""
