"""The version of every part: wheel, image, chart and receipts read it from here."""

__version__ = "0.1.0"
