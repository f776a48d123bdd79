"""What a text is: Unicode scripts and emoji, pieces of UTF-8, Vietnamese and English
(may import: ground).
"""
