"""Registration: two images in, one transform with a status out; one file a method."""

from modalign.registration.registrar import Registrar, Registration, Status

__all__ = ["Registrar", "Registration", "Status"]
