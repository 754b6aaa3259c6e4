"""Vital signs of a run while it trains."""
