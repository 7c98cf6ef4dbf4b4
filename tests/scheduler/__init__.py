"""The scheduler over real processes."""
