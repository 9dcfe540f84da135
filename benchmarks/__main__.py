"""The commands of `python -m benchmarks`: list, run, gradcheck, compare, plot, campaign and device."""

import sys


def main() -> int:
    """Run a command, and return its exit status."""
    if sys.argv[1:2] == ["device"]:
        # This command must run without tyro, which parses the other commands.
        from benchmarks.device import command

        return command.main(sys.argv[2:])
    from benchmarks import commands

    return commands.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
