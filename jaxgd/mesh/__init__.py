"""Devices and processes: the placement of data, the axes of a mesh, and the decisions of process 0."""

from jaxgd.mesh.placement import Placed, place

__all__ = ["Placed", "place"]
