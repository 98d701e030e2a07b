"""The planted slowdown is one: what it wraps still gives its result, and takes longer."""

from benchmarks.scripts.planted import FILE, PLANT, ROOT


def test_the_plant_fits_the_code_that_it_slows_down() -> None:
    text = (ROOT / FILE).read_text("utf-8")
    assert "\ndef grad_weight(" in text
    calls: list[tuple[tuple[int, ...], dict[str, int]]] = []

    def grad_weight(*given: int, **named: int) -> int:
        calls.append((given, named))
        return 7

    names = {"grad_weight": grad_weight}
    exec(PLANT.format(slowdown=0.05), names)
    assert names["grad_weight"](1, values=2) == 7
    assert names["grad_weight"] is not grad_weight
    assert calls == [((1,), {"values": 2})]
