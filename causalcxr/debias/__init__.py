"""Takes attributes out of embeddings, and measures with fresh probes how much of them is left."""
