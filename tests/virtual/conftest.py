from tests.pcsc_rig import pcsc_rig

__all__ = ["pcsc_rig"]
