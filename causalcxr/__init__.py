"""Deep structural causal models of chest X-rays."""
