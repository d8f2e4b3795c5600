"""Learning across hospitals whose images stay where they are: sites exchange weights, and nothing else."""
