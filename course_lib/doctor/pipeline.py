"""Checks of pipeline."""

CHECKS = ()
