"""What a program's `--check-config` says that it needs."""

import re
import subprocess

from units import seconds, size

# How much more time a process gets than it needs, because what stops it and a busy machine take some of it.
SPARE_STOP = 10


class Needs:
    """The variables, memory, time and addresses of a configuration."""

    def __init__(self, text):
        lines = [re.split(r" {2,}", line, maxsplit=2) for line in text.splitlines()]
        of_kind = {kind: [(name, value) for found, name, value in lines if found == kind] for kind, _, _ in lines}
        # Every variable with its value, defaults too; an unset one is empty.
        self.variables = {name: "" if value == "(none)" else value for name, value in of_kind["variable"]}
        # What all its memory adds up to, in bytes.
        self.memory = size(dict(of_kind["memory"])["together"])
        # The longest time that it takes to stop, in seconds.
        self.stop = seconds(dict(of_kind["stop"])["longest"])
        self.listens = {port_of(value) for _, value in of_kind.get("listens", [])}
        # The variable and the address, for each address that it calls.
        self.connects = of_kind.get("connects", [])

    def fit_into(self, memory):
        """Whether a limit of memory leaves three tenths beyond what the limits of the program add up to."""
        return memory >= 1.3 * self.memory

    def end_within(self, grace):
        return grace >= self.stop + SPARE_STOP


def port_of(address):
    return int(address.rpartition(":")[2])


def needs_of(command, variables):
    """What a program with these variables needs."""
    done = subprocess.run([*command, "--check-config"], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Needs(done.stdout)
