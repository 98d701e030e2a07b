"""Lean forms that are written by hand, each by the package that has the class."""

from typing import ClassVar, TypeVar

from torch import nn

FORMS: dict[type[nn.Module], type["LeanForm"]] = {}
"""The lean form of each class that has one; `register` adds to it."""


class LeanForm(nn.Module):
    """What a class derives from, beside `plain`, to be its lean form: modules are turned into it.

    It has the parameters of `plain`, and its outputs.
    """

    plain: ClassVar[type[nn.Module]]
    around_gelu: ClassVar[tuple[str, ...]] = ()
    """The names, in it, of the linears before and after the GELUs of which it keeps bits."""
    whole: ClassVar[bool] = True
    """Whether it speaks for all that is in it; else chains are looked for within."""
    gelu: int | None
    """Bits that are kept of GELU's derivative; None: its input is kept whole."""


Form = TypeVar("Form", bound=type[LeanForm])


def register(form: Form) -> Form:
    """Let `lean` turn every module of the class `form.plain` into `form`; returns `form`."""
    FORMS[form.plain] = form
    return form


def has_form(module: nn.Module) -> bool:
    """Whether a lean form written by hand speaks for all of `module`."""
    return isinstance(module, tuple(plain for plain, form in FORMS.items() if form.whole))
