"""Metrics as small functions: each file holds one idea, and the definition that is stored beside its values."""
