"""The pump: claims runs, and reports what became of them, in as few statements as can be."""
