"""Checks of data."""

CHECKS = ()
