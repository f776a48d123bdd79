"""A training stage, from flags to folder
(may import: ground, text, tokenizer, corpus, checkpoint, models, rows).
"""
