"""Auxiliary predictors `q(a | x)`: one trunk and a head per attribute, calibrated; and the separate evaluator."""
