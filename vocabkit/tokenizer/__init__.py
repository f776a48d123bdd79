"""A tokenizer as its files say and the libraries run it, and the theorems of BPE and Unigram
(may import: ground).
"""
