import pytest
from rendered import VARIANTS, render_variant


@pytest.fixture(scope="session", params=VARIANTS)
def documents(request, tmp_path_factory):
    """The documents of each variant."""
    return render_variant(request.param, tmp_path_factory.mktemp("variant"))
