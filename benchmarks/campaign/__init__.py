"""Attacks against jaxgd: kills, damaged files, bad commands, bad calls, damaged pictures and exhausted resources."""

from benchmarks.campaign.calls import calls
from benchmarks.campaign.commands import commands
from benchmarks.campaign.flips import flips
from benchmarks.campaign.kills import kills
from benchmarks.campaign.limits import limits
from benchmarks.campaign.pictures import pictures

FAMILIES = {
    "kills": kills,
    "flips": flips,
    "commands": commands,
    "calls": calls,
    "pictures": pictures,
    "limits": limits,
}
