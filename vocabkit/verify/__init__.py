"""The ladder: an edited folder beside its base, one file a rung
(may import: ground, text, tokenizer, corpus, checkpoint, models, rows).
"""
