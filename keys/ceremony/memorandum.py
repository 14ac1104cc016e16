"""The hand-over memorandum (密钥交接备忘录): the record of a ceremony as two people sign it by hand, in Chinese and English.

Made from a verified record alone, the same record always giving the same file. Chinese needs a font that is embedded: WenQuanYi Micro Hei
(Debian package fonts-wqy-microhei). Key material is in no record, and so in no memorandum.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFError, TTFont
from reportlab.platypus import Flowable, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from keys.ceremony.plan import Plan
from keys.ceremony.planfile import require_plan
from keys.ceremony.record import Entry, Record, fingerprint
from keys.errors import Unavailable

FONT_FILE: Final = Path("/usr/share/fonts/truetype/wqy/wqy-microhei.ttc")
FONT_PACKAGE: Final = "fonts-wqy-microhei"
_FONT: Final = "citycard-cjk"
_BODY: Final = ParagraphStyle("body", fontName=_FONT, fontSize=8.5, leading=11.5, wordWrap="CJK")
_TITLE: Final = ParagraphStyle("title", parent=_BODY, fontSize=17, leading=23, alignment=1)
_HEAD: Final = ParagraphStyle("head", parent=_BODY, fontSize=10.5, leading=14, spaceBefore=9, spaceAfter=3)
_KINDS: Final = {
    "generate": "生成 generation",
    "import": "导入 import",
    "backup": "备份 backup",
    "restore": "恢复 restoration",
    "destroy": "销毁 destruction",
    "export": "导出 export",
    "unseal": "解封 unsealing",
}
_DONE: Final = {
    "installed": "已装入 installed",
    "backed-up": "已备份 backed up",
    "destroyed": "已销毁 destroyed",
    "exported": "已导出 exported",
    "unsealed": "已解封 unsealed",
}


def memorandum(record: Record, content: bytes) -> bytes:
    """The PDF. `content` are the bytes `record` was verified from. Raises Unavailable FONT_MISSING."""
    _load_font()
    plan = require_plan(record.entries[0]["plan"], "plan in the record")
    story: list[Flowable] = [Paragraph("密钥交接备忘录", _TITLE), Paragraph("Key Hand-over Memorandum", _TITLE), Spacer(1, 4 * mm)]
    story += [*_facts(record, plan), *_keys(record, plan), *_pieces(record, plan), *_incidents(record)]
    story += [*_signatures(plan), *_proof(record, content)]
    out = io.BytesIO()
    document = SimpleDocTemplate(
        out,
        pagesize=A4,
        invariant=1,
        initialFontName=_FONT,
        leftMargin=18 * mm,
        rightMargin=18 * mm,
        topMargin=16 * mm,
        bottomMargin=18 * mm,
        title=f"密钥交接备忘录 {record.ceremony_id}",
        author="citycard",
    )

    def foot(canvas: Any, page: Any) -> None:  # noqa: ANN401 - reportlab's own types
        canvas.setFont(_FONT, 7.5)
        canvas.drawString(18 * mm, 10 * mm, f"{record.ceremony_id}")
        canvas.drawRightString(A4[0] - 18 * mm, 10 * mm, f"第 {page.page} 页 page {page.page}")

    document.build(story, onFirstPage=foot, onLaterPages=foot)
    return out.getvalue()


def _load_font() -> None:
    if _FONT in pdfmetrics.getRegisteredFontNames():
        return
    try:
        pdfmetrics.registerFont(TTFont(_FONT, str(FONT_FILE), subfontIndex=0))
    except TTFError:
        raise Unavailable("FONT_MISSING", f"the memorandum needs the font {FONT_FILE} (Debian package {FONT_PACKAGE})") from None


def _facts(record: Record, plan: Plan) -> list[Flowable]:
    opened, last = record.entries[0], record.entries[-1]
    state = {"closed": "已完成 closed", "aborted": "已中止 aborted"}.get(last["type"], "进行中 under way")
    scheme = {"xor": f"异或分量 XOR components, {len(plan.custodians)}", "none": "不分割 undivided"}.get(
        plan.scheme, f"SLIP-39 门限 {plan.threshold} / {len(plan.custodians)}"
    )
    marks = [*(["演练 REHEARSAL"] if opened["mode"] != "run" else []), *(["测试密钥 TEST KEYS"] if opened["test"] else [])]
    rows = [
        ("仪式编号 ceremony", record.ceremony_id),
        ("名称 title", plan.title),
        ("类别 kind", _KINDS[plan.kind]),
        ("状态 state", "，".join([state, *marks])),
        ("地点 place", plan.place),
        ("开始 opened", _time(opened)),
        ("结束 ended", _time(last)),
        ("保管方式 custody", plan.custody),
        ("分割方式 division", scheme),
        ("监督人 witness", f"{plan.witness.name} ({plan.witness.person_id})"),
    ]
    if plan.export is not None:
        rows.append(("接收方 recipient", f"{plan.export.recipient}; {plan.export.scheme}, KEK {plan.export.kek}"))
    return [_table(rows, (42, 132), header=False)]


def _keys(record: Record, plan: Plan) -> list[Flowable]:
    results = {entry["key"]: entry for entry in record.entries if entry["type"] == "result"}
    rows = [("密钥 key", "版本 ver.", "领域 domain", "层级 level", "算法 algorithm", "校验值 KCV", "结果 result")]
    for key in plan.keys:
        done = results.get(key.name, {})
        kcv = f"{done['kcv']} ({done['kcv_method']})" if "kcv" in done else "-"
        outcome = _DONE.get(done.get("done", ""), "未完成 not done")
        rows.append((key.key_id, str(key.version), key.domain, key.level, key.algorithm, kcv, outcome))
    return [Paragraph("密钥 Keys", _HEAD), _table(rows, (36, 13, 27, 20, 18, 32, 28))]


def _pieces(record: Record, plan: Plan) -> list[Flowable]:
    names = {person.person_id: person.name for person in plan.custodians}
    rows = [("保管人 custodian", "密钥 key", "分量 piece", "校验 check", "信封号 envelope", "时间 time (UTC)")]
    for entry in record.entries:
        if entry["type"] in {"component", "confirmed"}:
            piece = f"{entry['custodian_at'] + 1} / {len(plan.custodians)}" if entry["type"] == "component" else "同意 agreed"
            who = f"{names.get(entry['custodian'], '')} ({entry['custodian']})"
            key = f"{entry['key_id']} v{entry['version']}"
            rows.append((who, key, piece, entry.get("check", "-"), str(entry.get("envelope", "-")), _time(entry)))
    return [Paragraph("保管人与信封 Custodians and envelopes", _HEAD), _table(rows, (42, 38, 20, 18, 22, 34))]


def _incidents(record: Record) -> list[Flowable]:
    rows = [("时间 time (UTC)", "事件 event", "说明 detail")]
    for entry in record.entries:
        match entry["type"]:
            case "refused":
                rows.append((_time(entry), "输入被拒 entry refused", f"{entry['person']} {entry['key']}: {entry['reason']}"))
            case "void":
                rows.append((_time(entry), "信封作废 envelope void", f"{entry['envelope']}: {entry['why']}"))
            case "paused" | "resumed":
                event = "暂停 paused" if entry["type"] == "paused" else "继续 resumed"
                rows.append((_time(entry), event, entry.get("reason", "")))
            case "aborted":
                void = ", ".join(map(str, entry["void"])) or "-"
                rows.append((_time(entry), "中止 aborted", f"{entry['reason']}; 作废信封 void envelopes: {void}"))
    if len(rows) == 1:
        rows.append(("-", "无 none", ""))
    return [Paragraph("异常与中断 Incidents and interruptions", _HEAD), _table(rows, (34, 46, 94))]


def _signatures(plan: Plan) -> list[Flowable]:
    rows = [("姓名 name", "职责 role", "签名 signature", "日期 date")]
    rows += [(person.name, "保管人 custodian", "", "") for person in plan.custodians]
    rows.append((plan.witness.name, "监督人 witness", "", ""))
    return [KeepTogether([Paragraph("签字 Signatures", _HEAD), _table(rows, (40, 40, 60, 34), height=10)])]


def _proof(record: Record, content: bytes) -> list[Flowable]:
    rows = [
        ("记录条数 entries", str(len(record.entries))),
        ("记录 SHA-256", hashlib.sha256(content).hexdigest()),
        ("计划 plan SHA-256", str(record.entries[0]["plan_sha256"])),
        ("签名公钥指纹 key fingerprint", fingerprint(record.public_key)),
    ]
    note = "核验：citycard ceremony verify record.jsonl。本备忘录不含任何密钥内容。This memorandum holds no key material."
    shown = _table(rows, (50, 124), header=False)
    return [KeepTogether([Paragraph("核验 Verification", _HEAD), shown, Spacer(1, 2 * mm), Paragraph(note, _BODY)])]


def _table(rows: Iterable[Sequence[str]], widths: Sequence[float], *, header: bool = True, height: float | None = None) -> Table:
    cells = [[Paragraph(escape(cell), _BODY) for cell in row] for row in rows]
    if header:
        # the Chinese word above the English one, so that no narrow column breaks a word
        cells[0] = [Paragraph(str(cell.text).replace(" ", "<br/>", 1), _BODY) for cell in cells[0]]
    heights = None if height is None else [None, *[height * mm] * (len(cells) - 1)]
    table = Table(cells, colWidths=[width * mm for width in widths], rowHeights=heights, repeatRows=int(header))
    style: list[Any] = [
        ("GRID", (0, 0), (-1, -1), 0.4, colors.grey),
        ("FONTNAME", (0, 0), (-1, -1), _FONT),
        ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
        ("TOPPADDING", (0, 0), (-1, -1), 1.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2.5),
    ]
    shade = ((0, 0), (-1, 0)) if header else ((0, 0), (0, -1))
    table.setStyle(TableStyle([*style, ("BACKGROUND", *shade, colors.whitesmoke)]))
    return table


def _time(entry: Entry) -> str:
    return str(entry["time"])[:19].replace("T", " ")
