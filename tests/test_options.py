# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from dual_skd.errors import InputError
from dual_skd.options import switch


@pytest.mark.parametrize("value, wanted", [
    (True, True), ("true", True), ("True", True), ("TRUE", True),
    (False, False), ("false", False), ("False", False), ("FALSE", False),
])  # fmt: skip
def test_true_and_false_are_understood_in_any_case(value, wanted):
    assert switch(value, "amp") is wanted


@pytest.mark.parametrize("value", ["nonsense", "", "no", 0, 1, None])
def test_anything_else_is_refused_under_the_name_of_the_option(value):
    with pytest.raises(InputError) as caught:
        switch(value, "amp")
    assert str(caught.value) == f"Unknown amp {str(value).lower()!r}; valid: true, false."
