"""SSD from Scratch: a Single Shot MultiBox Detector, one module per idea."""

import os

# albumentations asks a server for its newest version at every import unless told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"
