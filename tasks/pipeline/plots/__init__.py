"""Pictures of visibilities and gains, as PNG, without a display."""
