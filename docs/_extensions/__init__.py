"""Sphinx extensions for the site: written pages, docstrings, signatures and links."""
