"""The options of training a CoMIR."""

from dataclasses import dataclass, field
from math import inf

from modalign.data.augmentation import Augmentation
from modalign.errors import InvalidInputError
from modalign.geometry.groups import GroupName
from modalign.losses import CriticName
from modalign.nn import Network, UNetOptions
from modalign.training.budget import Budget
from modalign.training.calibration import CalibrationOptions
from modalign.training.precision import Precision
from modalign.training.validation import ValidationOptions

DEFAULT_MINUTES = 6.0
PATCHES = {2: 64, 3: 16}
"""Side of the patches by the number of dimensions; at least twice the stride of the network."""


OWN_RANGE = {2: False, 3: True}
"""Whether images are scaled by their own range of intensities by default, by the number of dimensions."""


@dataclass(frozen=True)
class ComirOptions:
    """How a CoMIR is trained."""

    steps: int | None = None
    """Number of training steps; the result is then the same on every machine of a kind."""
    minutes: float | None = None
    """Wall time to train; 6 where no number of steps is given. Where both are, whichever ends first counts."""
    seed: int = 0
    """Seed of every random draw."""
    pixel_size: float | None = None
    """Learn at this pixel size, the same along all axes, in the unit of the images; by default at their own."""
    own_range: bool | None = None
    """Scale each image by its own range of intensities, as scans need whose numbers have no unit, and leave out what is
    background; by default volumes, while images share the range of all training images."""
    latent_channels: int = 1
    """Channels of the representation."""
    network: Network = field(default_factory=UNetOptions)
    """The network of each modality."""
    patch: int | None = None
    """Side of the training patches in pixels, by default 64, and 16 for volumes; smaller where the images are small."""
    batch: int = 16
    """Patches of each modality in a step, on each device."""
    max_memory: float | None = None
    """Memory to keep to, GiB: layers are then computed twice, batches worked on in parts, or patches made smaller, as
    far as needed; the negatives stay those of the whole batch."""
    critic: CriticName = "mse"
    """What makes two representations alike."""
    standardise: bool = True
    """Compare latents at zero mean and unit variance, as correlation does; learns several times faster."""
    temperature: float = 0.2
    """Divides the similarities; small values make the hardest negatives count most."""
    rim: int = 0
    """Pixels at the border of the patches that are not compared: what is there depends on where the patch ends."""
    near_misses: int = 0
    """Further negatives of each latent: its own partner, shifted by a few pixels; they make alignment more exact."""
    equivariance: bool = True
    """Turn the two patches of a pair independently by rotations of the grid, and their representations back."""
    group: GroupName | None = None
    """Which rotations; by default all that map the grid onto itself, by its pixel size."""
    activation_decay: tuple[float, float] = (1e-4, 1e-4)
    """Weights of the mean absolute and the mean squared latent in the loss."""
    learning_rate: float = 2e-3
    """Largest learning rate, reached after 5 % of the training; it then falls to zero along a cosine."""
    weight_decay: float = 1e-4
    """Weight decay of AdamW."""
    gradient_norm: float = 1.0
    """Gradients of each network are clipped to this norm."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Random changes of the training patches."""
    validation: ValidationOptions = field(default_factory=ValidationOptions)
    """How the model is judged while it trains."""
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    """How the verdict of the model is calibrated after training."""
    precision: Precision = "auto"
    """Arithmetic; auto takes bfloat16 where the processor has it, float32 elsewhere."""
    accelerator: str = "auto"
    """Where to compute: auto, cpu, cuda or mps."""
    devices: int = 1
    """Number of devices; the negatives of all of them are shared."""
    checkpoint_seconds: float = 60.0
    """How often an unfinished training is saved, where a folder for it is given."""

    def __post_init__(self) -> None:
        if self.rim and not 0 <= self.rim < (self.patch or min(PATCHES.values())) / 2 - 2:
            raise InvalidInputError(f"the rim is at least 0 and leaves something of a patch, not {self.rim}")
        if self.near_misses < 0:
            raise InvalidInputError(f"the number of near misses is at least 0, not {self.near_misses}")
        patch = 1 if self.patch is None else self.patch
        if min(self.latent_channels, patch, self.devices) < 1 or self.batch < 2:
            raise InvalidInputError("patch, latent channels and devices must be at least 1, and the batch at least 2")
        positive = (self.temperature, self.learning_rate, self.gradient_norm, self.checkpoint_seconds)
        if not all(0 < value < inf for value in positive):
            raise InvalidInputError(
                "temperature, learning rate, gradient norm and seconds between checkpoints must be positive numbers"
            )
        if not all(0 <= value < inf for value in (self.weight_decay, *self.activation_decay)):
            raise InvalidInputError("weight decay and activation decay must be numbers of at least 0")
        if self.max_memory is not None and not 0 < self.max_memory < inf:
            raise InvalidInputError(f"the memory to keep to must be a positive number of GiB, not {self.max_memory}")
        if self.pixel_size is not None and not 0 < self.pixel_size < inf:
            raise InvalidInputError(f"the pixel size must be a positive number, not {self.pixel_size}")
        if not 0 <= self.seed < 2**63:
            raise InvalidInputError(f"the seed must be a whole number from 0 to 2⁶³ − 1, not {self.seed}")
        Budget(self.steps, self._seconds)

    @property
    def budget(self) -> Budget:
        """The limit on training."""
        return Budget(self.steps, self._seconds)

    @property
    def _seconds(self) -> float | None:
        minutes = DEFAULT_MINUTES if self.minutes is None and self.steps is None else self.minutes
        return None if minutes is None else 60 * minutes
