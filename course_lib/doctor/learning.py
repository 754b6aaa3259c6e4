"""Checks of learning."""

CHECKS = ()
