"""Which tokens stay and which may come: rules, kept lists, word lists, the plan, the report page
(may import: ground, text, tokenizer).
"""
