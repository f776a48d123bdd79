"""How often each token occurs in a corpus, exactly (may import: ground, tokenizer, corpus)."""
