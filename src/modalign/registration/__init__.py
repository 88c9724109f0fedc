"""Registration: two images in, one transform with a status out; one file a method."""

from modalign.registration.fft_search import FftSearch
from modalign.registration.methods import METHODS, Method, method_from_dict, method_to_dict, register
from modalign.registration.mutual_information import MutualInformation
from modalign.registration.registrar import Registrar, Registration, Status
from modalign.registration.sift import Sift

__all__ = [
    "METHODS",
    "FftSearch",
    "Method",
    "MutualInformation",
    "Registrar",
    "Registration",
    "Sift",
    "Status",
    "method_from_dict",
    "method_to_dict",
    "register",
]
