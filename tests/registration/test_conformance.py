"""Every registration method obeys the laws."""

from modalign.registration import METHODS, AlphaAmd, Auto, Deform, DenseDescriptors, FftSearch, GlobalMI
from modalign.testing.registration import RegistrarLaws

FACTS = {
    "auto": {"method": Auto(max_rotation_degrees=12)},  # for speed, as in the next two; other tests try all rotations
    "fft-search": {"method": FftSearch(max_rotation_degrees=12)},
    "global-mi": {"method": GlobalMI(max_rotation_degrees=12)},
    "features": {"poses": ((-100.0, 0.1), (179.0, -0.15))},
    "dense": {  # corners of small volumes are few and less exact
        "method": DenseDescriptors(features=400),
        "poses": ((-100.0, 0.1), (179.0, -0.15)),
        "tolerance_pixels": 0.5,
    },
    "alpha-amd": {  # one start, for speed: in 3D, the default are 27
        "method": AlphaAmd(max_rotation_degrees=0, threads=1),
        "poses": ((5.0, 0.03), (-14.0, 0.08)),
    },
    "ecc": {"poses": ((1.0, 0.005), (-1.5, -0.01))},
    "deform": {"method": Deform("rigid", max_rotation_degrees=12, check_back=False), "tolerance_pixels": 0.5},
    "phase-correlation": {"poses": ((0.0, 0.1), (0.0, -0.2), (0.0, 0.013)), "tolerance_pixels": 0.1},
}
"""Where a method is tried otherwise than with its default options on the poses asked of all."""

NEEDS_COLOUR = dict.fromkeys(
    (
        "test_identical_images_give_the_identity",
        "test_known_poses_are_found_in_world_units",
        "test_a_transform_maps_each_world_in_its_own_unit",
        "test_a_world_without_a_unit_is_compared_in_pixels",
        "test_masked_pixels_do_not_count",
    )
)
"""Laws on pairs of gray images: the collagen baseline refuses these, for it needs a stained one; see its own tests."""

OF_THE_START = dict.fromkeys(
    (
        "test_unrelated_images_are_never_accepted",
        "test_poor_images_never_raise_and_are_never_accepted_wrongly",
        "test_right_angles_are_found_or_not_accepted",
        "test_periodic_texture_is_never_accepted",
    )
)
"""Laws about what is accepted: deformable registration takes that from ``auto``, with which it begins."""

EXEMPT = {"curvealign": NEEDS_COLOUR, "deform": OF_THE_START}

for kind in METHODS.values():
    name = f"Test{kind.__name__}"
    facts = {"method": kind(), **FACTS.get(kind.name, {}), **EXEMPT.get(kind.name, {})}
    globals()[name] = type(name, (RegistrarLaws,), facts)
