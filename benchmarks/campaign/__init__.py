"""Attacks against jaxgd: kills, damaged files, bad commands, bad calls, damaged pictures and exhausted resources."""

from benchmarks.campaign.calls import calls
from benchmarks.campaign.flips import flips
from benchmarks.campaign.kills import kills

FAMILIES = {"kills": kills, "flips": flips, "calls": calls}
