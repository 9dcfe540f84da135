"""Devices and processes: the placement of data, the axes of a mesh, and jobs of several processes."""

from jaxgd.mesh.placement import Placed, place

__all__ = ["Placed", "place"]
