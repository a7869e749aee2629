"""Every option, declared once: help, unit, default, range, and whether the protocol holds it.

An option is an annotated field of a frozen dataclass that derives from `Declared`. From the declaration follow the
command line's flag, the keyword argument of the Python function, the manual's reference and the protocol's field.

    @dataclass(frozen=True)
    class Blur(Declared):
        radius: Annotated[float, Option("Radius of the blur in pixels.", least=0, protocol=True)] = 1.0
"""
