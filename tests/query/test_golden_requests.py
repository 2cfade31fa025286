"""What Vespa is asked, as it was when tests/golden/requests was written."""

import pytest
from golden.make_requests import CASES, REQUESTS, golden_request


@pytest.mark.parametrize("case", CASES)
def test_golden_requests(case, tmp_path):
    assert golden_request(case, tmp_path / "scratch") == (REQUESTS / f"{case}.json").read_text(encoding="utf-8")


def test_each_golden_request_has_its_case():
    assert {file.stem for file in REQUESTS.iterdir()} == set(CASES)
