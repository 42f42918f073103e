"""Who signs: the interface of a signer, and one that keeps its key in this process."""
