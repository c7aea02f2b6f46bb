"""Reading microscopy files with named axes and metadata, one plane in memory at a time.

opening     read_stack: which format a file is, and its refusals
stack       Stack and Plane: what every format is turned into
tiff        TIFF, BigTIFF, ImageJ and OME-TIFF; tiff_checks its header, tiff_metadata its facts
ome         facts from OME-XML
mrc         MRC2014, and the dialect of DeltaVision and Priism
ome_zarr    OME-Zarr 0.4 and 0.5 folders; zarr_store and zarr_checks keep them in bounds
vendors     CZI, ND2 and LIF through bioio
selection   some channels of a stack
units       lengths in micrometres
"""

from __future__ import annotations

from cvdm.reading.opening import read_stack
from cvdm.reading.selection import selected
from cvdm.reading.stack import Metadata, Plane, Stack

__all__ = ["Metadata", "Plane", "Stack", "read_stack", "selected"]
