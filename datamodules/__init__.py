"""One dataset, one file; the names a config may use."""

from datamodules.own_videos import OwnVideos as OwnVideos
from datamodules.pseudo_anomaly import PseudoAnomaly as PseudoAnomaly
from datamodules.shanghaitech import ShanghaiTech as ShanghaiTech
from datamodules.ubnormal import UbNormal as UbNormal
from datamodules.uca import Uca as Uca
from datamodules.ucf_crime import UcfCrime as UcfCrime
from datamodules.ucsd_ped2 import UcsdPed2 as UcsdPed2
from datamodules.xd_violence import XdViolence as XdViolence
