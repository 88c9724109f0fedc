"""Registration: two images in, one transform with a status out; one file a method."""

from modalign.registration.alpha_amd import AlphaAmd
from modalign.registration.auto import Auto
from modalign.registration.curvealign import CurveAlign
from modalign.registration.deform import Deform
from modalign.registration.dense_descriptors import DenseDescriptors
from modalign.registration.ecc import Ecc
from modalign.registration.features import Features
from modalign.registration.fft_search import FftSearch
from modalign.registration.global_mi import GlobalMI
from modalign.registration.methods import ENGINES, METHODS, Method, method_from_dict, method_to_dict, register
from modalign.registration.mutual_information import MutualInformation
from modalign.registration.originals import refined_on_originals
from modalign.registration.phase_correlation import PhaseCorrelation
from modalign.registration.refinement import maximise_correlation
from modalign.registration.registrar import Registrar, Registration, Status
from modalign.registration.verify import Judge

__all__ = [
    "ENGINES",
    "METHODS",
    "AlphaAmd",
    "Auto",
    "CurveAlign",
    "Deform",
    "DenseDescriptors",
    "Ecc",
    "Features",
    "FftSearch",
    "GlobalMI",
    "Judge",
    "Method",
    "MutualInformation",
    "PhaseCorrelation",
    "Registrar",
    "Registration",
    "Status",
    "maximise_correlation",
    "method_from_dict",
    "method_to_dict",
    "refined_on_originals",
    "register",
]
