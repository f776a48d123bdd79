"""A conversation in the terminal, with a folder or a GGUF file
(may import: ground, text, tokenizer, checkpoint, models, gguf).
"""
