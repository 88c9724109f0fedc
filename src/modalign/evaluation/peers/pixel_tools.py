"""The peers that know pixels only: OpenCV's ECC and scikit-image's phase correlation. Space is put around them here."""

from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from modalign.errors import InvalidInputError
from modalign.evaluation.peers.peer import KINDS, Kind, Peer, PeerFailure, centred, check_kind
from modalign.geometry import Grid, Linear, Rigid, as_rows, identity
from modalign.image import Image
from modalign.registration import workspace

Array = np.ndarray
Picture = Literal["intensity", "gradient"]
Normalization = Literal["phase", "none"]
MOTIONS: dict[Kind, str] = {"rigid": "MOTION_EUCLIDEAN", "affine": "MOTION_AFFINE"}
COARSEST_SIDE = 32
"""No level of the pyramid has a shorter side."""
LEAST_SIDE = 16
"""Images with a shorter side are left to others: the derivatives of the tool need room."""


@dataclass(frozen=True)
class OpenCvEcc(Peer):
    """OpenCV's ``findTransformECC`` on a pyramid, from where the centres of the images coincide.

    Sources: Evangelidis and Psarakis, IEEE TPAMI 30(10), 2008; the settings of OpenCV's sample ``image_alignment`` (50
    iterations at least, increments down to 0.001) on a pyramid, which the function itself lacks. Between modalities the
    gradient magnitudes are aligned instead of the intensities, as the usual recipe for the channels of colours does:
    the sign of an edge is not the same in both.
    """

    transform: Kind = "rigid"
    """What may change: rotation and shift, or everything linear."""
    picture: Picture = "gradient"
    """What is aligned: the intensities, or the magnitude of their gradient."""
    levels: int = 4
    """Levels of the pyramid, each half as fine as the next."""
    iterations: int = 200
    """Most steps at each level."""
    epsilon: float = 1e-4
    """Increment of the correlation below which a level is done."""
    smoothing: int = 9
    """Side of the Gaussian window that smooths each level, pixels."""

    name: ClassVar[str] = "opencv-ecc"
    ndims: ClassVar[frozenset[int]] = frozenset({2})
    module: ClassVar[str] = "cv2"

    def __post_init__(self) -> None:
        check_kind(self.transform)
        if self.picture not in get_args(Picture) or self.levels < 1 or self.smoothing % 2 == 0:
            raise InvalidInputError("picture is intensity or gradient, there is a level, and the window has odd sides")

    def solve(self, fixed: Image, moving: Image) -> Linear:
        """Climb from the identity, coarse to fine."""
        pair = tuple(_picture(image, self.picture) for image in (fixed, moving))
        finest = workspace.finest_spacing(fixed, moving, 1 << 15)
        found: Linear = identity(fixed.ndim)
        solved = False
        for level in reversed(range(self.levels)):
            coarse_fixed, coarse_moving = (workspace.isotropic(image, finest * 2**level) for image in pair)
            if level and min(*coarse_fixed.grid.shape, *coarse_moving.grid.shape) < COARSEST_SIDE:
                continue
            try:
                found, solved = self._climbed(coarse_fixed, coarse_moving, found), True
            except PeerFailure:
                if not level and not solved:
                    raise
        return found

    def _climbed(self, fixed: Image, moving: Image, start: Linear) -> Linear:
        cv2: Any = self.library()
        to_index = np.linalg.inv(moving.grid.matrix)
        warp = _reversed_axes((to_index @ start.matrix @ fixed.grid.matrix)[:-1]).astype(np.float32)
        criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, self.iterations, self.epsilon)
        masks = [image.valid.astype(np.uint8) for image in (fixed, moving)]
        options = (getattr(cv2, MOTIONS[self.transform]), criteria)
        images = [np.ascontiguousarray(image.data[0], dtype=np.float32) for image in (fixed, moving)]
        try:
            if hasattr(cv2, "findTransformECCWithMask"):
                _, warp = cv2.findTransformECCWithMask(*images, *masks, warp, *options, self.smoothing)
            else:
                _, warp = cv2.findTransformECC(*images, warp, *options, masks[1], self.smoothing)
        except cv2.error as error:
            raise PeerFailure("it did not converge") from error
        matrix = np.eye(fixed.ndim + 1)
        matrix[:-1] = _reversed_axes(warp)
        return KINDS[self.transform].from_matrix(moving.grid.matrix @ matrix @ np.linalg.inv(fixed.grid.matrix))


@dataclass(frozen=True)
class SkimagePhaseCorrelation(Peer):
    """scikit-image's ``phase_cross_correlation``: the shift between two images, to a tenth of a pixel.

    Masked images are compared by the masked correlation of the same function, to a whole pixel. Source: Guizar-Sicairos
    et al., Optics Letters 33(2), 2008; Padfield, IEEE TIP 21(5), 2012. Tuned: the images are tapered by a Hann window,
    without which their borders decide. Rotations are not its business; see :class:`SkimageFourierMellin`.
    """

    upsampling: int = 10
    """Parts of a pixel to which the shift is found."""
    picture: Picture = "intensity"
    """What is correlated: the intensities, or the magnitude of their gradient."""
    normalization: Normalization = "phase"
    """Whether all frequencies count alike, or by their strength."""

    name: ClassVar[str] = "skimage-phase-correlation"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})
    module: ClassVar[str] = "skimage.registration"

    def solve(self, fixed: Image, moving: Image) -> Linear:
        """The shift of the world that the peak stands for."""
        pair = same_pixels(_picture(fixed, self.picture), _picture(moving, self.picture))
        shift = self._shift(*pair)
        return _shifted(pair[0].grid, shift)

    def _shift(self, fixed: Image, moving: Image) -> Float[Array, " ndim"]:
        correlate = self.library().phase_cross_correlation
        if fixed.mask is None and moving.mask is None:
            tapered = [_tapered(image) for image in (fixed, moving)]
            return np.asarray(
                correlate(
                    *tapered,
                    upsample_factor=self.upsampling,
                    normalization=None if self.normalization == "none" else "phase",
                )[0],
                dtype=float,
            )
        masks = {"reference_mask": fixed.valid, "moving_mask": moving.valid}
        return np.asarray(correlate(fixed.data[0], moving.data[0], **masks, overlap_ratio=0.3)[0], dtype=float)


@dataclass(frozen=True)
class SkimageFourierMellin(Peer):
    """Rotation from the spectra in polar coordinates, then the shift, both by scikit-image's phase correlation.

    Source: Reddy and Chatterji, IEEE TIP 5(8), 1996, as in scikit-image's gallery ("Using Polar and Log-Polar
    Transformations for Registration"): band-passed by a difference of Gaussians, Hann window, half of the spectrum.
    Tuned: the logarithm of the spectrum, as few strong frequencies decide otherwise, and finer details. A spectrum does
    not tell a rotation from that by half a turn more, so both are tried and the better correlation is kept.
    """

    low_sigma: float = 1.0
    """Smallest standard deviation of the band-pass, pixels."""
    high_sigma: float = 20.0
    """Largest standard deviation of the band-pass, pixels."""
    picture: Picture = "intensity"
    """What is compared: the intensities, or the magnitude of their gradient."""
    upsampling: int = 10
    """Parts of a pixel, and of an angular step, to which the answer is found."""

    name: ClassVar[str] = "skimage-fourier-mellin"
    ndims: ClassVar[frozenset[int]] = frozenset({2})
    module: ClassVar[str] = "skimage.registration"

    def solve(self, fixed: Image, moving: Image) -> Linear:
        """The rotation about the common centre, and the shift that is left."""
        fixed, moving = same_pixels(_picture(fixed, self.picture), _picture(moving, self.picture))
        degrees = self._degrees(fixed, moving)
        options = [self._shifted(fixed, moving, degrees + half_turn) for half_turn in (0.0, 180.0)]
        return max(options, key=lambda option: option[0])[1]

    def _shifted(self, fixed: Image, moving: Image, degrees: float) -> tuple[float, Rigid]:
        """The correlation and the transform for one rotation."""
        turn = centred(fixed.grid, fixed.grid, degrees)
        turned = moving.resampled(fixed.grid, turn, fill=_medians(moving))
        pair = [_tapered(image) for image in (fixed, turned)]
        shift = self.library().phase_cross_correlation(*pair, upsample_factor=self.upsampling)[0]
        moved = ndimage.shift(pair[1], shift, order=1)
        score = float(np.corrcoef(pair[0].ravel(), moved.ravel())[0, 1])
        return score, Rigid.from_matrix(turn.matrix @ _shifted(fixed.grid, np.asarray(shift, dtype=float)).matrix)

    def _degrees(self, fixed: Image, moving: Image) -> float:
        from skimage.transform import warp_polar

        spectra = [self._spectrum(image) for image in (fixed, moving)]
        radius = min(spectra[0].shape) // 4
        polar = [
            warp_polar(spectrum, radius=radius, output_shape=(2 * max(spectrum.shape), radius))[: max(spectrum.shape)]
            for spectrum in spectra
        ]
        found = self.library().phase_cross_correlation(*polar, upsample_factor=self.upsampling, normalization=None)
        return float(found[0][0]) * 180.0 / len(polar[0])

    def _spectrum(self, image: Image) -> Float[Array, "rows columns"]:
        values = image.data[0]
        band = ndimage.gaussian_filter(values, self.low_sigma) - ndimage.gaussian_filter(values, self.high_sigma)
        return np.asarray(np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(band * _hann(band.shape))))))


def same_pixels(fixed: Image, moving: Image) -> tuple[Image, Image]:
    """Both images in float32 on one grid of square pixels around the centre of the fixed one, which both share.

    What lies outside an image has the median of it.

    Raises:
        PeerFailure: They are too small for any tool.
    """
    spacing = workspace.finest_spacing(fixed, moving, 1 << 15)
    pair = [workspace.isotropic(image, spacing) for image in (fixed, moving)]
    shape = tuple(max(sides) for sides in zip(*(image.grid.shape for image in pair), strict=True))
    if min(shape) < LEAST_SIDE:
        raise PeerFailure(f"the images have less than {LEAST_SIDE} pixels along an axis")
    grid = pair[0].grid.centered(shape)
    masked = [image.mask is not None for image in pair]
    seen = [image.resampled(grid, identity(grid.ndim), fill=_medians(image)) for image in pair]
    return tuple(image if m else Image(image.data, grid) for image, m in zip(seen, masked, strict=True))  # type: ignore[return-value]


def _medians(image: Image) -> Float[Array, " channels"]:
    return np.array([np.median(channel[image.valid]) for channel in image.data], dtype=float)


def _picture(image: Image, picture: Picture) -> Image:
    if picture == "intensity":
        return image
    magnitude = ndimage.gaussian_gradient_magnitude(image.data[0].astype(np.float32), 1.0)
    return image.with_data(magnitude[None])


def _tapered(image: Image) -> Float[Array, "*spatial"]:
    values = image.data[0]
    return np.asarray((values - values.mean()) * _hann(values.shape))


def _hann(shape: tuple[int, ...]) -> Float[Array, "*spatial"]:
    return np.asarray(reduce(np.multiply.outer, [np.hanning(n) for n in shape]))


def _shifted(grid: Grid, shift: Float[Array, " ndim"]) -> Rigid:
    """scikit-image's shift takes the moving image onto the fixed one, so that x of the fixed is x − shift there."""
    offset = -np.array(grid.direction) @ (shift * grid.spacing)
    return Rigid(as_rows(np.eye(grid.ndim)), tuple(offset.tolist()))


def _reversed_axes(matrix: Float[Array, "ndim homogeneous"]) -> Float[Array, "ndim homogeneous"]:
    """The rows of an affine map between (y, x) as those between (x, y), or the other way round."""
    return np.column_stack([matrix[::-1, -2::-1], matrix[::-1, -1]])
