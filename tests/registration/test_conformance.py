"""Every registration method obeys the laws."""

from modalign.registration import METHODS, FftSearch
from modalign.testing.registration import RegistrarLaws

FACTS = {
    "fft-search": {"method": FftSearch(max_rotation_degrees=20)},  # for speed; test_fft_search tries all rotations
    "sift": {"poses": ((-100.0, 0.1), (179.0, -0.15))},
}
"""Where a method is tried otherwise than with its default options on the poses asked of all."""

for kind in METHODS.values():
    name = f"Test{kind.__name__}"
    globals()[name] = type(name, (RegistrarLaws,), {"method": kind(), **FACTS.get(kind.name, {})})
