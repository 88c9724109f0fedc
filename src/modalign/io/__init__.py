"""Files: images, label maps, points, transforms, tables and JSON. The only code that opens files.

xyz order, patient axes, corner-based pixels and the units of files exist here and nowhere else. Format libraries are
imported when a file of theirs is read, so importing this package is cheap.
"""

from modalign.io.arrays import arrays_of_bytes, bytes_of_arrays, map_arrays, read_arrays, write_arrays
from modalign.io.files import (
    atomic_folder,
    atomic_path,
    check_replaceable,
    make_folder,
    plain,
    read_json,
    remove_leftovers,
    staged,
    write_bytes,
    write_json,
    write_text,
)
from modalign.io.images import (
    can_be_tiled,
    check_writable,
    describe_image,
    is_image_folder,
    open_tiled,
    read_grid,
    read_image,
    read_labels,
    read_mask,
    read_with_pixel_size,
    write_image,
    write_labels,
    write_tiled,
)
from modalign.io.names import SUFFIXES, image_files, stem, suffix
from modalign.io.points import read_points, write_points
from modalign.io.pyramid import Compression, write_pyramid
from modalign.io.tables import read_table, write_table
from modalign.io.tiled import TiledReader
from modalign.io.transforms import (
    StoredTransform,
    read_transform,
    transform_from_dict,
    transform_to_dict,
    write_transform,
)

__all__ = [
    "SUFFIXES",
    "Compression",
    "StoredTransform",
    "TiledReader",
    "arrays_of_bytes",
    "atomic_folder",
    "atomic_path",
    "bytes_of_arrays",
    "can_be_tiled",
    "check_replaceable",
    "check_writable",
    "describe_image",
    "image_files",
    "is_image_folder",
    "make_folder",
    "map_arrays",
    "open_tiled",
    "plain",
    "read_arrays",
    "read_grid",
    "read_image",
    "read_json",
    "read_labels",
    "read_mask",
    "read_points",
    "read_table",
    "read_transform",
    "read_with_pixel_size",
    "remove_leftovers",
    "staged",
    "stem",
    "suffix",
    "transform_from_dict",
    "transform_to_dict",
    "write_arrays",
    "write_bytes",
    "write_image",
    "write_json",
    "write_labels",
    "write_points",
    "write_pyramid",
    "write_table",
    "write_text",
    "write_tiled",
    "write_transform",
]
