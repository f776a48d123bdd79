"""Rows that explain Vietnamese words, written by a language model and checked."""
