"""Tasks that write no model: view_embeddings, compare_vocab, compare_inits
(may import: ground, text, tokenizer, corpus, vocab, checkpoint, models, rows).
"""
