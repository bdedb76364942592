"""What keeps a worker alive in the eyes of the others: its row, its heart, its rounds."""
