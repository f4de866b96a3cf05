"""Checks a query API against its own description: `check.py ADDRESS TOKEN`.

The description must be valid OpenAPI 3.1. Then schemathesis sends generated requests, valid and invalid ones. Each
answer must have a status, headers and a body that the description allows.
"""

import subprocess
import sys
from pathlib import Path

import schemathesis

address, token = sys.argv[1:]
headers = {"Authorization": f"Bearer {token}"}
schema = schemathesis.openapi.from_url(f"{address}/openapi.json", headers=headers)
assert schema.raw_schema["openapi"].startswith("3.1."), schema.raw_schema["openapi"]
schema.validate()

command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(Path(__file__).with_name("schemathesis.toml"))]
command += ["run", f"{address}/openapi.json", "--header", f"Authorization: Bearer {token}"]
command += ["--phases", "examples,coverage,fuzzing", "--no-color"]
sys.exit(subprocess.run(command, check=False).returncode)
