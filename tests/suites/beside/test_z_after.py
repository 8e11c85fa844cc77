"""What the fixtures of other modules have set is back."""

import os


def test_the_hooks_have_put_the_cache_back(cache, calls):
    assert cache == {}
    of_greeting = [call for call, name in calls if name == "module fixture greeting"]
    assert of_greeting == ["enter", "leave"]


def test_the_variables_of_a_module_are_back():
    assert "MODULE" not in os.environ
    assert "LATE" not in os.environ
    assert os.environ["IMPORT"] == "set"
