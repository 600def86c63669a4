"""One paper, one file; the names a config may use."""

from lightning_modules.mil_ranker import MilRanker as MilRanker
