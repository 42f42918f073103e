"""The chain: one interface for records that nobody can take back, and what stands behind it."""
