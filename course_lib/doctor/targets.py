"""Checks of targets."""

CHECKS = ()
