"""Documents of operators' kinds have the fields and types of those kinds, and no other field.

Kubernetes checks them only where the operator is installed. Needs KINDS, the folder of k8s/tests/package.json with its
packages: types in TypeScript, made from the definitions of the operators. Its compiler refuses a field that a type lacks.
"""

import copy
import json
import os
import subprocess
from pathlib import Path

import pytest
from rendered import OF_OPERATORS, VARIANTS, render_variant

KINDS = Path(os.environ["KINDS"])
PACKAGES = {kind: package for kind, package in OF_OPERATORS.items() if package}


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """Those of all variants."""
    folder = tmp_path_factory.mktemp("variants")
    rendered = [one for variant in VARIANTS for one in render_variant(variant, folder / variant)]
    return [one for one in rendered if one["kind"] in PACKAGES]


def compiled(documents, folder):
    """What the compiler says of the documents."""
    lines = []
    for number, one in enumerate(documents):
        package = f"@kubernetes-models/{PACKAGES[one['kind']]}/{one['apiVersion']}"
        lines.append(f"import {{ I{one['kind']} as Kind{number} }} from {json.dumps(package)};")
        lines.append(f"export const document{number}: Kind{number} = {json.dumps(one, indent=1)};")
    (folder / "documents.ts").write_text("\n".join(lines) + "\n")
    (folder / "node_modules").symlink_to(KINDS / "node_modules")
    flags = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--types", ""]
    compiler = KINDS / "node_modules/.bin/tsc"
    return subprocess.run([compiler, *flags, "documents.ts"], cwd=folder, capture_output=True, text=True).stdout


def test_every_document_of_an_operator_has_the_fields_of_its_kind(documents, tmp_path):
    assert {one["kind"] for one in documents} == set(PACKAGES)
    assert compiled(documents, tmp_path) == ""


@pytest.mark.parametrize("kind", PACKAGES)
def test_a_field_that_a_kind_does_not_have_is_named(kind, documents, tmp_path):
    document = copy.deepcopy(next(one for one in documents if one["kind"] == kind))
    document["spec"]["misspelt"] = True
    assert "\"misspelt\"' does not exist in type" in compiled([document], tmp_path)
