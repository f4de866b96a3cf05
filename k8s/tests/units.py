"""Quantities of Kubernetes, and sizes and times of our variables, as numbers."""

import re

UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def size(text):
    """The bytes of a quantity of Kubernetes, or of a size among our variables."""
    number, unit = re.fullmatch(r"([0-9]+) ?([A-Za-z]*)", text).groups()
    return int(number) * UNITS[unit]


def seconds(text):
    """The seconds of a duration among our variables: `15s`, `1m 15s`."""
    parts = re.findall(r"([0-9]+)([a-z]+)", text)
    return sum(int(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts)
