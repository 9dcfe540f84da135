"""Attacks against jaxgd: kills, damaged files, bad commands, bad calls, damaged pictures and exhausted resources."""

from benchmarks.campaign import calls, commands, flips, kills, limits, pictures

FAMILIES = {
    "kills": kills.attacks,
    "flips": flips.attacks,
    "commands": commands.attacks,
    "calls": calls.attacks,
    "pictures": pictures.attacks,
    "limits": limits.attacks,
}
