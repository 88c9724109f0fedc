"""The sets.

Addresses and splits are those of the publications; what could not be read there is left to the publisher's own record,
which is asked when a set is fetched: names, sizes and checksums of the files, and the licence.
"""

from types import MappingProxyType

from modalign.data.catalogue import comir
from modalign.data.catalogue.entry import Entry
from modalign.data.catalogue.multiregeval import Patches, Subvolumes

COMIR = (
    "Pielawski, Wetzer, Öfverstedt, Lu, Wählby, Lindblad, Sladoje: CoMIR: Contrastive Multimodal Image Representation "
    "for Registration, NeurIPS 2020"
)
MULTIREGEVAL = (
    "Lu, Öfverstedt, Lindblad, Sladoje: Is image-to-image translation the panacea for multimodal image registration? "
    "A comparative study, PLOS ONE 17(11): e0276196, 2022, and Datasets for Evaluation of Multimodal Image "
    "Registration, Zenodo, doi 10.5281/zenodo.5557568"
)
MULTIREGEVAL_RECORD, MULTIREGEVAL_DOI = 5557568, "10.5281/zenodo.5557568"
FOLDS = ("fold1", "fold2", "fold3")
ZURICH, CYTOLOGICAL = Patches("Zurich_patches", FOLDS, ".png", True), Patches("Balvan_patches", FOLDS, ".png")
HISTOLOGICAL, RADIOLOGICAL = Patches("Eliceiri_patches", ("",), ".tif"), Subvolumes()

ENTRIES: MappingProxyType[str, Entry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            Entry(
                name="bf-shg",
                title="Multimodal Biomedical Dataset for Evaluating Registration Methods: tissue microarray cores",
                fixed="second harmonic",
                moving="bright field",
                record=3874362,
                doi="10.5281/zenodo.3874362",
                wanted=("*",),
                citation=f"Eliceiri et al., Zenodo 2020, doi 10.5281/zenodo.3874362; {COMIR}",
                contents="train: cores; 134 test patches of 834 × 834, displaced by ±30° and ±100 pixels",
                load=comir.bf_shg,
                displaced=comir.bf_shg_displaced,
                levels=1,
            ),
            Entry(
                name="zurich-summer",
                title="Zurich Summer v1.0: aerial images",
                fixed="colours",
                moving="near infrared",
                record=5914759,
                doi="10.5281/zenodo.5914759",
                wanted=("*",),
                citation=f"Volpi, Ferrari: Zurich Summer v1.0, doi 10.5281/zenodo.5914759; {COMIR}",
                contents="20 tiles of 4 channels, of which CoMIR trains on zh10 and tests on zh12",
                load=comir.zurich_summer,
            ),
            Entry(
                name="multiregeval-zurich",
                title="MultiRegEval: aerial patches of 300 × 300",
                fixed="near infrared",
                moving="colours",
                record=MULTIREGEVAL_RECORD,
                doi=MULTIREGEVAL_DOI,
                wanted=("*zurich*",),
                citation=MULTIREGEVAL,
                contents="3 folds by tile, 72 test pairs each, displaced at 4 levels",
                load=ZURICH.load,
                displaced=ZURICH.displaced,
                folds=3,
                levels=4,
            ),
            Entry(
                name="multiregeval-cytological",
                title="MultiRegEval: cultured cells, patches of 300 × 300",
                fixed="fluorescence",
                moving="quantitative phase",
                record=MULTIREGEVAL_RECORD,
                doi=MULTIREGEVAL_DOI,
                wanted=("*balvan*", "*cyto*"),
                citation=MULTIREGEVAL,
                contents="3 folds by cell line (DU145, PNT1A, LNCaP), 420 test pairs each, displaced at 4 levels",
                load=CYTOLOGICAL.load,
                displaced=CYTOLOGICAL.displaced,
                folds=3,
                levels=4,
            ),
            Entry(
                name="multiregeval-histological",
                title="MultiRegEval: tissue microarray cores, patches of 834 × 834",
                fixed="second harmonic",
                moving="bright field",
                record=MULTIREGEVAL_RECORD,
                doi=MULTIREGEVAL_DOI,
                wanted=("*eliceiri*", "*histo*"),
                citation=MULTIREGEVAL,
                contents="134 test pairs, displaced at 4 levels; the cores to train on are those of bf-shg",
                load=HISTOLOGICAL.load,
                displaced=HISTOLOGICAL.displaced,
                levels=4,
            ),
            Entry(
                name="multiregeval-radiological",
                title="MultiRegEval: brain sub-volumes of 210 × 210 × 70, made from RIRE",
                fixed="T1",
                moving="T2",
                record=MULTIREGEVAL_RECORD,
                doi=MULTIREGEVAL_DOI,
                wanted=("*rire*", "*radio*"),
                citation=f"{MULTIREGEVAL}; RIRE, Retrospective Image Registration Evaluation, Vanderbilt University",
                contents="3 folds by patient, 4 patients each, 10 displacements at each of 4 levels: 480 pairs",
                load=RADIOLOGICAL.load,
                displaced=RADIOLOGICAL.displaced,
                folds=3,
                levels=4,
                by_hand=(
                    "the volumes patient_NNN_mr_T1.mhd and patient_NNN_mr_T2.mhd, with their data files, of the 12 "
                    "patients, from https://www.insight-journal.org/rire/download_data.php, anywhere in the folder"
                ),
            ),
        )
    }
)
"""The public sets by name."""
