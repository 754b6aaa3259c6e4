"""Checks of network."""

CHECKS = ()
