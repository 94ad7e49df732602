"""Restore and colourise old film and photographs."""

__version__ = "0.1.0"
