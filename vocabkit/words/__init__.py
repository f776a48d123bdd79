"""Vietnamese words and syllables that are worth a token
(may import: ground, text, tokenizer, corpus, vocab, checkpoint, models, chat).
"""
