"""A drift-scan telescope that is simulated, into the files its recordings would be, with the truth beside them."""
