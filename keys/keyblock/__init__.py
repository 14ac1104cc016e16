"""Keys on their way from one house to another: never in clear, each bound to its use, its strength and its check value.

`blocks` reads and writes key blocks (ANSI X9.143 B, C, D; a private S for SM4), `keywrap` AES-KW and AES-KWP, `handover` the signed set of
wrapped keys that goes to a lower level or comes from an upper one.
"""

from keys.keyblock.blocks import KeyBlock, open_block, rewrap, unwrap, wrap
from keys.keyblock.header import Header, parse_header
from keys.keyblock.keywrap import key_unwrap, key_wrap

__all__ = ["Header", "KeyBlock", "key_unwrap", "key_wrap", "open_block", "parse_header", "rewrap", "unwrap", "wrap"]
