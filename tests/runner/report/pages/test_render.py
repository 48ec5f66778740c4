"""Values as pages print them."""

from __future__ import annotations

import pytest

from runner.report.pages.render import _TEMPLATES, _environment
from runner.text import size_text


@pytest.mark.parametrize("size_bytes", [0, 1023, 1536, 283_534_848, 5 << 41])
def test_a_size_reads_on_a_page_as_on_the_terminal(size_bytes: int) -> None:
    assert _environment(_TEMPLATES).from_string("{{ n | size }}").render(n=size_bytes) == size_text(size_bytes)
