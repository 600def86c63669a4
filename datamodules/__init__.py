"""One dataset, one file; the names a config may use."""

from datamodules.ucf_crime import UcfCrime as UcfCrime
