"""Mechanisms: one structural equation per variable, all with the contract of `base.Mechanism`."""
