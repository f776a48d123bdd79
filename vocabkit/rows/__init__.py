"""Rows of new tokens: formulas, contexts, distilling, measures
(may import: ground, text, tokenizer, corpus, checkpoint, models).
"""
