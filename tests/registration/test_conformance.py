"""Every registration method obeys the laws."""

from modalign.registration import METHODS
from modalign.testing.registration import RegistrarLaws

WIDE = ((5.0, 0.03), (-100.0, 0.1), (179.0, -0.15))
POSES = {"fft-search": WIDE, "sift": WIDE}
"""Methods that claim more than the laws ask of all."""

for kind in METHODS.values():
    name = f"Test{kind.__name__}"
    facts = {"method": kind(), "poses": POSES.get(kind.name, RegistrarLaws.poses)}
    globals()[name] = type(name, (RegistrarLaws,), facts)
