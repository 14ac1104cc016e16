"""Good orders of people who do not exist, the same ones for the same numbers: for rehearsals, tests and measurements.

Row `i` is a function of `i` alone: citizen numbers, card numbers and PANs never repeat, and all check digits fit. PANs are of the
test range 629999 and phone numbers of no network. A row is as long as one of a real bureau, about 190 bytes in UTF-8.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Final, Literal

from engine.orders import gb18030
from engine.orders.columns import COLUMNS
from engine.orders.rules import card_check_character, id_check_character, luhn_fits

MOST_ROWS: Final = 80_000_000

_DISTRICTS: Final = (
    ("410102", "中原区"),
    ("410103", "二七区"),
    ("410104", "管城回族区"),
    ("410105", "金水区"),
    ("410106", "上街区"),
    ("410108", "惠济区"),
    ("410122", "中牟县"),
    ("410181", "巩义市"),
    ("410182", "荥阳市"),
    ("410183", "新密市"),
    ("410184", "新郑市"),
    ("410185", "登封市"),
)
_FAMILIES: Final = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎"
_GIVEN: Final = "伟芳娜秀英敏静丽强磊军洋勇艳杰娟涛明超兰霞平刚桂文辉建华国志嘉怡思雨宇鑫𬭎㛃䶮"
_LONG: Final = ("买买提依明·吐尔逊阿吉", "阿卜杜热西提·阿卜力克木", "阿卜杜热依木江·麦麦提吐尔逊·阿卜力米提")
_ETHNICITIES: Final = ("01", "01", "01", "01", "03", "11", "15", "05")
_BANKS: Final = ("ICBC", "CCB", "ABC", "BOC", "BCM", "ZZB")
_KINDS: Final = ("首次", "首次", "首次", "首次", "首次", "首次", "首次", "首次", "补卡", "换卡")
_ROADS: Final = ("东风路", "西关路", "南原路", "北阳路", "中山路")
_FIRST_DAY: Final = datetime.date(1950, 1, 1)
_DAYS: Final = 25_000


def _name(index: int) -> str:
    if index % 100 == 99:
        return _LONG[index // 100 % len(_LONG)]
    mixed = index * 2654435761 % 2**32
    given = _GIVEN[mixed // 64 % len(_GIVEN)]
    second = _GIVEN[mixed // 4096 % len(_GIVEN)] if mixed % 3 else ""
    return _FAMILIES[mixed % len(_FAMILIES)] + given + second


def row(index: int) -> tuple[str, ...]:
    """The values of row `index` (0 to MOST_ROWS - 1), in the order of COLUMNS."""
    district, place = _DISTRICTS[index % 12]
    serial = index // 12 % 1000
    born = _FIRST_DAY + datetime.timedelta(days=index // 12_000 * 7919 % _DAYS)
    birth_date = born.strftime("%Y%m%d")
    seventeen = f"{district}{birth_date}{serial:03d}"
    citizen = seventeen + id_check_character(seventeen)
    eight = f"{'ABCDEFGH'[index // 10_000_000]}{index % 10_000_000:07d}"
    account = f"629999{index * 7_368_787 % 10**12:012d}"
    pan = next(account + digit for digit in "0123456789" if luhn_fits(account + digit))
    return (
        str(index + 1),
        citizen,
        _name(index),
        "1" if serial % 2 else "2",
        _ETHNICITIES[index % len(_ETHNICITIES)],
        birth_date,
        "410100",
        eight + card_check_character(eight),
        "20261123",
        "20361123",
        _BANKS[index % len(_BANKS)],
        pan,
        f"100{index * 31 % 10**8:08d}",
        f"河南省郑州市{place}{_ROADS[index % len(_ROADS)]}{index % 400 + 1}号",
        _KINDS[index % len(_KINDS)],
        f"Z{index % 526 + 1:03d}",
        f"{citizen}.jpg",
    )


def order_file(rows: int, *, first: int = 0, encoding: Literal["utf-8", "gb18030"] = "utf-8") -> Iterator[bytes]:
    """An order file with Chinese headings and CRLF, in pieces of about a thousand lines."""
    lines = [",".join(column.headings[0] for column in COLUMNS)]
    for index in range(first, first + rows):
        lines.append(",".join(row(index)))
        if len(lines) >= 1000:
            yield _encoded(lines, encoding)
            lines = []
    if lines:
        yield _encoded(lines, encoding)


def _encoded(lines: list[str], encoding: str) -> bytes:
    text = "\r\n".join(lines) + "\r\n"
    return gb18030.encode(text) if encoding == "gb18030" else text.encode("utf-8")
