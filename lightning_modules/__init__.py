"""One paper, one file; the names a config may use."""

from lightning_modules.dual_encoder import DualEncoder as DualEncoder
from lightning_modules.frame_difference import FrameDifference as FrameDifference
from lightning_modules.hiprobe import HiProbe as HiProbe
from lightning_modules.lavida import Lavida as Lavida
from lightning_modules.mil_ranker import MilRanker as MilRanker
from lightning_modules.prompting import Prompting as Prompting
from lightning_modules.steervad import SteerVad as SteerVad
from lightning_modules.zero_shot_clip import ZeroShotClip as ZeroShotClip
