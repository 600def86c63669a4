"""The public annotation formats -> Videos, and frame labels in every ground-truth convention: all names in one place.

A dataset's readers stand in annotations_<dataset>.py, the conventions in ground_truth.py, and what the readers share
in annotation_files.py. NumPy only.
"""

from vigil.annotation_files import video_name
from vigil.annotations_shanghaitech import SHANGHAITECH_CATEGORIES, shanghaitech
from vigil.annotations_ubnormal import TRACK_CONVENTIONS, track_intervals, ubnormal, ubnormal_tracks
from vigil.annotations_uca import UcaEvent, caption_frames, uca, uca_events
from vigil.annotations_ucf_crime import UCF_CRIME_CATEGORIES, ucf_crime, ucf_crime_category
from vigil.annotations_ucsd_ped2 import ucsd_ped2
from vigil.annotations_xd_violence import (
    XD_VIOLENCE_CATEGORIES,
    XD_VIOLENCE_CODES,
    xd_violence,
    xd_violence_classes,
    xd_violence_name_categories,
)
from vigil.ground_truth import (
    CONVENTIONS,
    XD_VIOLENCE_CONVENTIONS,
    Lengths,
    anomalous_runs,
    array_length,
    array_lengths,
    frame_labels,
    lengths,
)

__all__ = [
    "CONVENTIONS",
    "SHANGHAITECH_CATEGORIES",
    "TRACK_CONVENTIONS",
    "UCF_CRIME_CATEGORIES",
    "XD_VIOLENCE_CATEGORIES",
    "XD_VIOLENCE_CODES",
    "XD_VIOLENCE_CONVENTIONS",
    "Lengths",
    "UcaEvent",
    "anomalous_runs",
    "array_length",
    "array_lengths",
    "caption_frames",
    "frame_labels",
    "lengths",
    "shanghaitech",
    "track_intervals",
    "ubnormal",
    "ubnormal_tracks",
    "uca",
    "uca_events",
    "ucf_crime",
    "ucf_crime_category",
    "ucsd_ped2",
    "video_name",
    "xd_violence",
    "xd_violence_classes",
    "xd_violence_name_categories",
]
