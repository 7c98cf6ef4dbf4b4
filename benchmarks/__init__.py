"""Measured against peers, in interleaved rounds; see RESULTS.md."""
