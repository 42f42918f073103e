"""Federated learning whose server sees nothing and whose every round anyone can check."""

__version__ = "0.1.0"
