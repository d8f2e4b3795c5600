"""Cohorts: one manifest and one memory-mapped image cache, whatever the source."""
