"""Gates: measures of a product, and whether they let it pass."""
