"""Bias studies with a twin: plant a bias, and see what a network makes of it."""
