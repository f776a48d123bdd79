"""Texts out of files, folders and hub data sets, read in blocks, counted on all cores, resumed
(may import: ground, text).
"""
