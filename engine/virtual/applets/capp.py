"""The common card application: DFs with files and keys, access by external authentication. Social security, health, city.

DGIs (the maker's specification): A001 a DF and its files; sfi||record a record; 8020/8021/8022 keys (3DES, SM4, AES);
9020/9021/9022 their check values.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.virtual.applets.base import Applet, trim
from engine.virtual.crypto import AES, BLOCK, SM4, TDES, ecb, kcv, same
from engine.virtual.nvm import Nvm
from engine.virtual.wire import Command, Refused, tlv

TRANSPARENT, LINEAR, CYCLIC = 0x01, 0x02, 0x04
INTERNAL_AUTHENTICATION, EXTERNAL_AUTHENTICATION, MASTER = 0x01, 0x02, 0x0B
_PURPOSES = range(0x01, 0x0C)
FREE, NEVER = 0x00, 0xFF

_KEY_DGIS = {0x8020: TDES, 0x8021: SM4, 0x8022: AES}
_KCV_DGIS = {0x9020: TDES, 0x9021: SM4, 0x9022: AES}
_KEY_ENTRY = 20
_FILE_ENTRY = 8
_FILE_DESCRIPTOR = {TRANSPARENT: b"\x01", LINEAR: b"\x04", CYCLIC: b"\x06"}


class File(NamedTuple):
    """One file of a DF, as A001 lists it: size is bytes for a transparent file, records otherwise."""

    fid: int
    sfi: int
    type: int
    size: int
    read: int
    update: int


class Capp(Applet):
    """An instance with a root DF and any number of further DFs, each with its own files and keys."""

    def __init__(self, nvm: Nvm, aid: bytes) -> None:
        super().__init__(nvm, aid)
        self._df = 0
        self._file: File | None = None
        self._authenticated: set[int] = set()
        self.handlers |= {
            0xB2: self._read_record,
            0xDC: self._update_record,
            0xB0: self._read_binary,
            0xD6: self._update_binary,
            0x88: self._internal_authenticate,
        }

    # Personalization

    def is_sensitive(self, dgi: int) -> bool:
        return dgi in _KEY_DGIS

    def spans(self, dgi: int, value: bytes) -> list[tuple[int, int]]:  # noqa: ARG002 - all key DGIs here are alike
        if not value or len(value) % _KEY_ENTRY:
            raise Refused(0x6A80)
        return [(at + 4, at + _KEY_ENTRY) for at in range(0, len(value), _KEY_ENTRY)]

    def store(self, dgi: int, value: bytes) -> None:
        if dgi == 0xA001:
            self._store_df(value)
        elif dgi in _KEY_DGIS:
            self._store_keys(_KEY_DGIS[dgi], value)
        elif dgi in _KCV_DGIS:
            self._check_kcvs(_KCV_DGIS[dgi], value)
        elif 0x01 <= dgi >> 8 <= 0x1E and 0x01 <= dgi & 0xFF <= 0xFE:
            self._store_record(dgi >> 8, dgi & 0xFF, value)
        else:
            raise Refused(0x6A80)

    def finish_personalization(self) -> None:
        if not self._df_count():
            raise Refused(0x6985)
        super().finish_personalization()

    def _store_df(self, value: bytes) -> None:
        size = value[0] if value else 0
        name, entries = value[1 : 1 + size], value[1 + size :]
        if not 5 <= size <= 16 or len(name) != size or len(entries) % _FILE_ENTRY:
            raise Refused(0x6A80)
        df = self._df_count()
        if (df == 0) != (name == self.aid) or any(self._df_name(other) == name for other in range(df)):
            raise Refused(0x6A80)
        files = _files(entries)
        if len({f.sfi for f in files}) != len(files) or len({f.fid for f in files}) != len(files):
            raise Refused(0x6A80)
        for f in files:
            if not 0x01 <= f.sfi <= 0x1E or f.type not in _FILE_DESCRIPTOR or not f.size:
                raise Refused(0x6A80)
            if f.type != TRANSPARENT and f.size > 0xFE:
                raise Refused(0x6A80)
        self.nvm.put(f"{self.prefix}dfs", df + 1)
        self.nvm.put(f"{self.prefix}df.{df}.name", name)
        self.nvm.put(f"{self.prefix}df.{df}.files", entries)

    def _personalized_df(self) -> int:
        """The DF the last A001 made current."""
        count = self._df_count()
        if not count:
            raise Refused(0x6A80)
        return count - 1

    def _store_record(self, sfi: int, number: int, value: bytes) -> None:
        df = self._personalized_df()
        file = next((f for f in self._files_of(df) if f.sfi == sfi), None)
        if file is None:
            raise Refused(0x6A80)
        if file.type == TRANSPARENT:
            # The whole content comes as record 1; the rest of the file is zero.
            if number != 1 or len(value) > file.size:
                raise Refused(0x6A80)
            value = value.ljust(file.size, b"\x00")
        elif number > file.size or not 1 <= len(value) <= 0xFF:
            raise Refused(0x6A80)
        self.nvm.put(self._record(df, sfi, number), value)

    def _store_keys(self, algorithm: str, value: bytes) -> None:
        df = self._personalized_df()
        loaded = b""
        for at in range(0, len(value), _KEY_ENTRY):
            entry = value[at : at + _KEY_ENTRY]
            name = self._key(df, algorithm, entry[0])
            if name in self.nvm or entry[1] not in _PURPOSES or entry[0] in (FREE, NEVER):
                raise Refused(0x6A80)
            self.nvm.put(name, entry)
            loaded += entry[:1]
        self.nvm.put(f"{self.prefix}df.{df}.loaded.{algorithm}", loaded)

    def _check_kcvs(self, algorithm: str, value: bytes) -> None:
        df = self._personalized_df()
        kids = self.nvm.get_bytes(f"{self.prefix}df.{df}.loaded.{algorithm}")
        if not kids or len(value) != 3 * len(kids):
            raise Refused(0x6A80)
        keys = [(self.nvm.get_bytes(self._key(df, algorithm, kid)) or b"")[4:] for kid in kids]
        if not same(b"".join(kcv(algorithm, key) for key in keys), value):
            raise Refused(0x6A80)

    # Selection

    def names(self, aid: bytes, *, exact: bool) -> bytes | None:
        for df in range(self._df_count() if self.personalized else 0):
            name = self._df_name(df)
            if name == aid or (not exact and name.startswith(aid)):
                return name
        return super().names(aid, exact=exact)

    def select(self, df_name: bytes) -> bytes:
        fci = super().select(df_name)
        count = self._df_count() if self.personalized else 0
        self._df = next((df for df in range(count) if self._df_name(df) == df_name), 0)
        return fci

    def deselect(self) -> None:
        super().deselect()
        self._df = 0
        self._file = None
        self._authenticated.clear()

    def select_file(self, fid: int) -> bytes:
        """SELECT of an EF of the current DF, or of the root DF by 3F00; Refused 6A82."""
        if not self.personalized:
            raise Refused(0x6985)
        if fid == 0x3F00:
            return self.select(self.aid)
        file = next((f for f in self._files_of(self._df) if f.fid == fid), None)
        if file is None:
            raise Refused(0x6A82)
        self._file = file
        size = file.size.to_bytes(2, "big")
        content = tlv(0x82, _FILE_DESCRIPTOR[file.type]) + tlv(0x83, fid.to_bytes(2, "big")) + tlv(0x88, bytes((file.sfi << 3,)))
        return tlv(0x6F, content + (tlv(0x80, size) if file.type == TRANSPARENT else tlv(0x85, size)))

    # Files

    def _file_by(self, sfi: int) -> File:
        if sfi:
            self._file = next((f for f in self._files_of(self._df) if f.sfi == sfi), None)
            if self._file is None:
                raise Refused(0x6A82)
        if self._file is None:
            raise Refused(0x6986)
        return self._file

    def _allow(self, condition: int) -> None:
        if condition != FREE and (condition == NEVER or condition not in self._authenticated):
            raise Refused(0x6982)

    def _record_file(self, command: Command) -> tuple[File, int]:
        if command.cla:
            raise Refused(0x6E00)
        if command.p2 & 0x07 != 0x04 or command.p2 >> 3 == 0x1F:
            raise Refused(0x6A86)
        file = self._file_by(command.p2 >> 3)
        if file.type == TRANSPARENT:
            raise Refused(0x6981)
        return file, command.p1

    def _read_record(self, command: Command) -> tuple[bytes, int]:
        file, number = self._record_file(command)
        if command.data:
            raise Refused(0x6700)
        self._allow(file.read)
        content = self.nvm.get_bytes(self._record(self._df, file.sfi, number))
        if content is None:
            raise Refused(0x6A83)
        return trim(content, command.le)

    def _update_record(self, command: Command) -> tuple[bytes, int]:
        file, number = self._record_file(command)
        if not command.data:
            raise Refused(0x6700)
        self._allow(file.update)
        if file.type == CYCLIC:
            # The newest record is always number 1; the oldest falls out (ISO/IEC 7816-4 clause 7.3).
            for older in range(file.size, 1, -1):
                moved = self.nvm.get_bytes(self._record(self._df, file.sfi, older - 1))
                if moved is not None:
                    self.nvm.put(self._record(self._df, file.sfi, older), moved)
            number = 1
        if not 1 <= number <= file.size:
            raise Refused(0x6A83)
        self.nvm.put(self._record(self._df, file.sfi, number), command.data)
        return b"", 0x9000

    def _binary_file(self, command: Command) -> tuple[File, int]:
        if command.cla:
            raise Refused(0x6E00)
        if command.p1 & 0x80:
            if command.p1 & 0x60 or not command.p1 & 0x1F:
                raise Refused(0x6A86)
            file, offset = self._file_by(command.p1 & 0x1F), command.p2
        else:
            file, offset = self._file_by(0), command.p1 << 8 | command.p2
        if file.type != TRANSPARENT:
            raise Refused(0x6981)
        return file, offset

    def _binary(self, file: File) -> bytes:
        return self.nvm.get_bytes(self._record(self._df, file.sfi, 1)) or bytes(file.size)

    def _read_binary(self, command: Command) -> tuple[bytes, int]:
        file, offset = self._binary_file(command)
        if command.data:
            raise Refused(0x6700)
        self._allow(file.read)
        content = self._binary(file)
        if offset >= len(content):
            raise Refused(0x6B00)
        return content[offset : offset + (command.le or 256)], 0x9000

    def _update_binary(self, command: Command) -> tuple[bytes, int]:
        file, offset = self._binary_file(command)
        if not command.data:
            raise Refused(0x6700)
        self._allow(file.update)
        content = self._binary(file)
        if offset >= len(content):
            raise Refused(0x6B00)
        if offset + len(command.data) > len(content):
            raise Refused(0x6A84)
        changed = content[:offset] + command.data + content[offset + len(command.data) :]
        self.nvm.put(self._record(self._df, file.sfi, 1), changed)
        return b"", 0x9000

    # Authentication

    def _key_entry(self, kid: int, size: int) -> tuple[str, bytes]:
        """Algorithm and entry of a key in the current DF whose block has `size` bytes; Refused 6A88, or 6700 for another size."""
        other = False
        for algorithm in (TDES, SM4, AES):
            entry = self.nvm.get_bytes(self._key(self._df, algorithm, kid))
            if entry is not None:
                if BLOCK[algorithm] == size:
                    return algorithm, entry
                other = True
        raise Refused(0x6700 if other else 0x6A88)

    def _internal_authenticate(self, command: Command) -> tuple[bytes, int]:
        if command.cla:
            raise Refused(0x6E00)
        if command.p1:
            raise Refused(0x6A86)
        algorithm, entry = self._key_entry(command.p2, len(command.data))
        if entry[1] != INTERNAL_AUTHENTICATION:
            raise Refused(0x6985)
        return ecb(algorithm, entry[4:], command.data), 0x9000

    def external_authenticate(self, command: Command, challenge: bytes | None) -> tuple[bytes, int]:
        if command.cla:
            raise Refused(0x6E00)
        if command.p1:
            raise Refused(0x6A86)
        algorithm, entry = self._key_entry(command.p2, len(command.data))
        if entry[1] not in (EXTERNAL_AUTHENTICATION, MASTER) or challenge is None or len(challenge) != BLOCK[algorithm]:
            raise Refused(0x6985)
        tries = f"{self._key(self._df, algorithm, command.p2)}.tries"
        answer = self.check_cryptogram(ecb(algorithm, entry[4:], challenge), command.data, tries, entry[3])
        if answer[1] == 0x9000:
            self._authenticated.add(command.p2)
        else:
            self._authenticated.discard(command.p2)
        return answer

    # Names in memory

    def _df_count(self) -> int:
        return self.nvm.get_int(f"{self.prefix}dfs")

    def _df_name(self, df: int) -> bytes:
        return self.nvm.get_bytes(f"{self.prefix}df.{df}.name") or b""

    def _files_of(self, df: int) -> list[File]:
        return _files(self.nvm.get_bytes(f"{self.prefix}df.{df}.files") or b"")

    def _record(self, df: int, sfi: int, number: int) -> str:
        return f"{self.prefix}df.{df}.rec.{sfi:02X}{number:02X}"

    def _key(self, df: int, algorithm: str, kid: int) -> str:
        return f"{self.prefix}df.{df}.key.{algorithm}.{kid:02X}"


def _files(entries: bytes) -> list[File]:
    return [
        File(int.from_bytes(e[:2], "big"), e[2], e[3], int.from_bytes(e[4:6], "big"), e[6], e[7])
        for e in (entries[at : at + _FILE_ENTRY] for at in range(0, len(entries), _FILE_ENTRY))
    ]
