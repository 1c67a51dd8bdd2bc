"""Decompositions, inverses and norms of matrices."""
