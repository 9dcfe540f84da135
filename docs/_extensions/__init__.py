"""Sphinx extensions for the site: generated pages, docstrings, signatures and links."""
