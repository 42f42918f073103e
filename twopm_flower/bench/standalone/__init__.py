"""What runs in a peer's environment, too: by its path, importing nothing of this package."""
