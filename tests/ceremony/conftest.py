"""Real SoftHSM tokens for ceremonies, as for the custody's own tests."""

from tests.custody.conftest import rig, token

__all__ = ["rig", "token"]
