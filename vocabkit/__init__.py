"""Fit the vocabulary of a language model to English and Vietnamese."""
