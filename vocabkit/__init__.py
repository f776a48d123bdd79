"""The shared core of the vocabulary toolkit; the scripts at the top level are thin wrappers around it."""
