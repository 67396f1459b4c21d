"""Names that are typed come out as they are: a colon and a letter are no emoji, brackets no markup."""

import io

from amsc.cli.console import Console


def test_a_name_is_neither_emoji_nor_markup() -> None:
    out, err = io.StringIO(), io.StringIO()
    console = Console(out, err)
    console.show("nets:V: 3 layers")
    console.table("nets:V: [red]", ["name:V:"], [["[bold]:V:"]], note="more: nets:V: ...")
    console.note("nets:V: [red]")
    console.error("nets:V: failed")
    shown = out.getvalue()
    assert shown.startswith("nets:V: 3 layers\n")
    for text in ("nets:V: [red]", "name:V:", "[bold]:V:", "more: nets:V: ..."):
        assert text in shown
    assert err.getvalue() == "nets:V: [red]\nerror: nets:V: failed\n"
