"""Recovery over real processes."""
