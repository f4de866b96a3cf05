import pytest
from rendered import K8S, OVERLAYS, render


@pytest.fixture(scope="session", params=[K8S / "base", *OVERLAYS], ids=lambda path: path.name)
def documents(request):
    """The documents of each variant."""
    return render(request.param)
