"""The exercises, a module for each chapter: what is asked, right answers, and the mistakes that people make.

The answers are in here. Try first.
"""
