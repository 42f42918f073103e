"""Homomorphic encryption of updates: parameters, packing, ciphertexts, keys, masking."""
