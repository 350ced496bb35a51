"""A daemon that turns a folder into an image studio."""

__version__ = "0.1.0"
