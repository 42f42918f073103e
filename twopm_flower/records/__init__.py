"""What is said and signed: canonical records, digests, merkle trees, statements, bundles."""
