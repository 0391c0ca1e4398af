"""One color for each category of memory, in every picture."""

from stepbench.measure.memory_timeline import CATEGORIES

COLORS = dict(zip(CATEGORIES, ("#0072B2", "#56B4E9", "#009E73", "#D55E00", "#E69F00"), strict=True))
