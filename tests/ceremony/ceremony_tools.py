"""Plans as text, a vault that opens fast, and a desk that types from a script."""

from __future__ import annotations

from collections import defaultdict, deque
from datetime import UTC, date, datetime, timedelta

from keys.ceremony.desk import Topic
from keys.ceremony.planfile import require_plan
from keys.ceremony.software import SoftwareVault, _Store
from keys.components import check_component, combine, component_kcv, make_component
from keys.errors import Precondition
from keys.secrets import SecretBytes

PASSPHRASE = "correct horse battery staple"
NAMES = ["li.wei", "wang.fang", "zhang.min", "liu.yang", "chen.jing", "yang.lei", "zhao.tao", "huang.na", "zhou.jie"]
CHINESE = ["李伟", "王芳", "张敏", "刘洋", "陈静", "杨磊", "赵涛", "黄娜", "周杰"]
KEY = {"id": "ss.dks1", "domain": "social-security", "purpose": "application", "level": "city", "algorithm": "3des", "version": 1}


def toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return str(value) if isinstance(value, int | date) else f'"{value}"'


def table(name, fields):
    return "\n".join([name, *(f"{field} = {toml(value)}" for field, value in fields.items()), ""])


def plan_text(
    kind="generate", scheme="xor", custodians=2, keys=(KEY,), output=True, threshold=None, names=NAMES, device="/tmp", export=None, **top
):
    """A plan file; `output` and `threshold` are left out where they do not belong."""
    if kind == "unseal" or top.get("store_key"):
        top.setdefault("custody", "sealed")
    wants_output = output and kind in ("generate", "backup") and scheme != "none"
    parts = [
        table(
            "schema = 1", {"name": "zz-2026", "title": "郑州社保主密钥", "kind": kind, "place": "密钥室 2", "custody": "software", **top}
        ),
        table("[scheme]", {"type": scheme, **({"threshold": threshold or 2} if scheme == "slip39" else {})}),
        *(table("[[keys]]", key) for key in keys),
        *(table("[[custodians]]", {"id": names[at], "name": CHINESE[NAMES.index(names[at])]}) for at in range(custodians)),
        table("[witness]", {"id": "sun.wei", "name": "孙伟"}),
        *([table("[output]", {"device": device, "format": "text", "first_envelope": 1001})] if wants_output else []),
        *([table("[export]", export)] if export else []),
    ]
    return "\n".join(parts)


def plan(**fields):
    return require_plan(plan_text(**fields), "plan.toml")


def make_vault(directory):
    """A TEST vault whose passphrase costs nothing to check."""
    return SoftwareVault(directory, _Store.create(directory, PASSPHRASE, test=True, scrypt_n=1 << 4))


def components(count=3, algorithm="3des", length=16):
    """Component texts, their check digits, and the key they make."""
    made = [make_component(algorithm, length) for _ in range(count)]
    digits = [component_kcv(algorithm, piece).hex().upper() for piece in made]
    for at, piece in enumerate(made):
        check_component(algorithm, piece, made[:at], bytes.fromhex(digits[at]))
    return [bytes(piece.reveal()).hex().upper() for piece in made], digits, bytes(combine(algorithm, made).reveal())


class Clock:
    """A second passes at every look."""

    def __init__(self):
        self.now = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)

    def __call__(self):
        self.now += timedelta(seconds=1)
        return self.now


class Desk:
    """Types what `answers[topic, custodian, key]` holds, in turn; otherwise what a custodian who follows the plan would type."""

    def __init__(self, wanted, pieces=None):
        self.plan = wanted
        self.pieces = pieces or {}
        self.answers = defaultdict(deque)
        self.lines = []
        self.asked = []
        self.printed = {}
        self.checks = {}
        self.stop_at = None

    def script(self, topic, *answers, custodian=0, key=0):
        self.answers[topic, custodian, key].extend(answers)

    def _next(self, question):
        self.asked.append(question)
        if self.stop_at == len(self.asked):
            raise Precondition("CEREMONY_PAUSED", "interrupted at the desk: the ceremony is paused")
        waiting = self.answers[question.topic, max(question.custodian, 0), max(question.key, 0)]
        return waiting.popleft() if waiting else None

    def say(self, line):
        self.lines.append(line)

    def clear(self):
        self.lines.append("[screen cleared]")

    def secret(self, question):
        typed = self._next(question)
        typed = self.pieces[question.key][question.custodian][0] if typed is None else typed
        return SecretBytes(typed.encode())

    def ask(self, question):
        typed = self._next(question)
        if typed is not None:
            return typed
        match question.topic:
            case Topic.CHECK_DIGITS:
                return self.pieces[question.key][question.custodian][1]
            case Topic.ENVELOPE_READ:
                return self.checks[max(self.checks)]
            case Topic.CONFIRM:
                return self.plan.keys[question.key].kcv or "yes"
            case Topic.WITNESS:
                return self.plan.witness.person_id
        return ""

    def print_envelope(self, envelope, secret):
        self.printed[envelope.serial] = bytes(secret.reveal()).decode()
        self.checks[envelope.serial] = envelope.check_value
