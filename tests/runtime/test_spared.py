"""A stand-in for a module is there within the block, and nothing of it afterwards."""

import importlib
import sys

import pytest

from pipeline.runtime.spared import spared

RARE = "xdrlib_of_nobody.part"


def test_whoever_asks_gets_a_stand_in_until_the_block_ends() -> None:
    with spared(RARE):
        assert importlib.import_module(RARE).anything is None
        assert not hasattr(sys.modules[RARE], "__all__"), "Python asks for such names itself"
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(RARE)


def test_it_goes_when_the_import_fails() -> None:
    with pytest.raises(ZeroDivisionError), spared(RARE):
        raise ZeroDivisionError
    assert RARE not in sys.modules


def test_a_module_that_is_there_stays() -> None:
    with spared("json.decoder"):
        assert importlib.import_module("json.decoder").JSONDecoder is not None
    assert "json.decoder" in sys.modules
